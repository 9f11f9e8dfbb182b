"""How this program is called, so that what it tells people to type can be typed. Must not know what the commands do."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from .failures import Refusal

STORE_VARIABLE = "NIGHT_BATCH_STORE"
"""The environment variable that names the store where no option does."""


def program() -> str:
    """`night-batch`, or `python3 -m package` where it was called in that way."""
    package = __name__.rpartition(".tools.")[0]
    door = Path(__file__).parent.parent / "__main__.py"
    if not sys.argv or sys.argv[0] != str(door):
        return "night-batch"
    return f"{shlex.quote(_python(sys.orig_argv[0] if sys.orig_argv else sys.executable))} -m {package}"


def _python(called: str) -> str:
    """How to call this interpreter: as it was called, but without a folder that only a launcher of versions put before it."""
    path = Path(called)
    is_from_launcher = path.is_absolute() and sys.prefix == sys.base_prefix and shutil.which(path.name) is not None
    return path.name if is_from_launcher else called


def path_meant(text: str) -> Path:
    """A path as people type it, where `~` is a home.

    Raises:
        Refusal: there is no such home.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:  # nobody's, or that of somebody unknown
        raise Refusal(f"There is no home folder for {text}. Write the whole path.") from None


def to_type(command: str, *words: str, store: str | os.PathLike[str] | None = None) -> str:
    """A command line that does what is meant, in the shell's quotes: `night-batch show monday --store runs.db`.

    Args:
        command: the command.
        words: what comes behind it.
        store: the store's path; left out where the environment names that store anyway.
    """
    named = [] if store is None or os.environ.get(STORE_VARIABLE) == os.fspath(store) else ["--store", os.fspath(store)]
    return " ".join([program(), command, *(shlex.quote(word) for word in (*words, *named))])
