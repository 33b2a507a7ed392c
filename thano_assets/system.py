"""Small things asked of the operating system, in one place."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 file whole: a kill at any moment leaves the old one or the new one.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def process_alive(pid: int) -> bool:
    """Whether a process with that number runs on this machine (always said to on Windows)."""
    if os.name == "nt":
        return True  # signal 0 would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_SCRATCH = ".stage-"


def scratch_path(folder: Path, suffix: str = "") -> Path:
    """A name in ``folder`` for a file or folder of this process, which tells whose it is.

    It names the machine too: where several share a disk, a process number alone says nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{_SCRATCH}{_machine()}-{os.getpid()}-{uuid.uuid4().hex}{suffix}"


@contextmanager
def scratch_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """As :func:`scratch_path`; the file, which the block may write, is removed at its end."""
    with _removed_at_end(scratch_path(folder, suffix)) as path:
        yield path


@contextmanager
def _removed_at_end(path: Path) -> Iterator[Path]:
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def scratch_database(folder: Path) -> Iterator[Path]:
    """As :func:`scratch_file`, for a DuckDB file and its log."""
    with scratch_file(folder, ".duckdb") as path, _removed_at_end(path.with_name(f"{path.name}.wal")):
        yield path


def remove_abandoned(folder: Path) -> int:
    """Remove the scratch files and folders of processes of this machine that are gone; returns how many."""
    removed = 0
    for path in folder.glob(f"{_SCRATCH}*"):
        parts = path.name.removeprefix(_SCRATCH).split("-")
        if len(parts) == 2:  # of a version that did not write the machine
            parts.insert(0, _machine())
        if (
            len(parts) != 3
            or parts[0] != _machine()
            or not parts[1].isdigit()
            or process_alive(int(parts[1]))
        ):
            continue
        if path.is_dir():  # what did not fit into memory
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed += 1
    return removed


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
