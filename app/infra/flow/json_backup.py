"""Copies the folder of a JSON store: on the disk and whole, or not at all. Must not know what is in its files, or who writes."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from .file_system import FileSystem, regular_files


def backup(
    folder: Path, target: Path, suffixes: tuple[str, ...], files: FileSystem, standing_still: AbstractContextManager[None]
) -> None:
    """Make a folder with copies of all files that have one of these suffixes.

    Args:
        folder: where they are.
        target: the new folder, which gets its name when it is complete.
        suffixes: of the names.
        files: how files are read and written.
        standing_still: while it is entered, nobody writes to the folder.

    Raises:
        FileExistsError: there is something at `target`.
        OSError: the copy could not be made; nothing is left of it.
    """
    if os.path.lexists(target):
        raise FileExistsError(target)
    made = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
    made.mkdir(0o700)
    try:
        with standing_still:
            names = [name for name in regular_files(folder) if name.endswith(suffixes)]
            for name in names:
                files.create(made / name, files.read(folder / name) or b"", sync=False)
        for name in names:  # not while others wait
            files.sync_file(made / name)
        files.sync_folder(made)
        made = made.rename(target)
        files.sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
