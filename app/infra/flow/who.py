"""Who this process is, in the words in which owners, attempts and errors name one: `process 123 on host`."""

from __future__ import annotations

import os
from socket import gethostname


def process_name(pid: int, host: str) -> str:
    """A process, as people read it."""
    return f"process {pid} on {host}"


def this_process() -> str:
    """This one."""
    return process_name(os.getpid(), gethostname())
