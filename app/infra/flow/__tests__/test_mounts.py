"""Which file system a path lies on, by tables like the kernel's, and what a store says where it is a network's."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from .. import Changes, SQLiteStore, mounts
from ..mounts import kind_of, network_file_system
from ..testing.store_contract import a_run

TABLE = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
31 22 0:33 / /home rw shared:7 master:3 - nfs4 server:/home rw,vers=4.2
32 31 254:1 / /home/me/local rw - xfs /dev/vdb rw
33 22 0:40 / /mnt/with\040space\134and\011more rw - fuse.sshfs me@there: rw
34 22 0:41 / /covered rw - cifs //server/share rw
35 22 254:2 / /covered rw - ext4 /dev/vdc rw
36 22 0:42 / /hidden rw - ext4 /dev/vdd rw
37 22 0:43 / /hidden rw - nfs server:/hidden rw
a line that makes no sense
38 22 0:44
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib/runs.db", "ext4"),
        ("/proc/self", "proc"),
        ("/home", "nfs4"),
        ("/home/me/runs.db", "nfs4"),
        ("/homeless/runs.db", "ext4"),
        ("/home/me/local/runs.db", "xfs"),
        ("/home/me/localities/runs.db", "nfs4"),
        ("/mnt/with space\\and\tmore/runs.db", "fuse.sshfs"),
        ("/covered/runs.db", "ext4"),
        ("/hidden/deep/runs.db", "nfs"),
    ],
)
def test_the_innermost_mount_decides(path: str, kind: str) -> None:
    """Not one whose name merely begins alike; of two at one place, the later one; escapes in names are understood."""
    assert kind_of(TABLE, path) == kind


@pytest.mark.parametrize("table", ["", "\n", "nonsense", "1 2 3 4 /", "1 2 3 4 / rw -"])
def test_a_table_that_says_nothing(table: str) -> None:
    """Then nobody knows, and nothing is claimed."""
    assert kind_of(table, "/home/me") is None


def test_where_there_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems other than Linux."""
    monkeypatch.setattr(mounts, "_TABLE", tmp_path / "none")
    assert network_file_system(str(tmp_path)) is None


def a_table(tmp_path: Path, kind: str) -> Path:
    """A table by which the folder is a mount of that kind, in a file that is not quite UTF-8."""
    place = os.fsencode(tmp_path / "mount").replace(b" ", rb"\040")
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"22 1 254:0 / / rw - ext4 /dev/vda rw\n23 22 0:9 / /\xff rw - nfs x rw\n24 22 0:33 / "
        + place
        + b" rw - %b x rw\n" % kind.encode()
    )
    (tmp_path / "mount").mkdir(exist_ok=True)
    return table


@pytest.mark.skipif(os.name == "nt", reason="paths of POSIX")
@pytest.mark.parametrize(
    ("kind", "warned"), [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("9p", True), ("ext4", False), ("tmpfs", False)]
)
def test_a_store_on_a_network_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, warned: bool
) -> None:
    """It works, and warns once at each opening that locks do not hold there; through a symbolic link, too."""
    monkeypatch.setattr(mounts, "_TABLE", a_table(tmp_path, kind))
    (tmp_path / "link").symlink_to(tmp_path / "mount")
    for number, folder in enumerate(("mount", "link")):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "night_batch"), SQLiteStore(tmp_path / folder / "runs.db") as store:
            store.commit(Changes(new_runs=[a_run(f"run{number}")]))
            assert len(store.list_runs()) == number + 1
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == warned
        assert all("runs.db" in message and f"network file system ({kind})" in message for message in told)
