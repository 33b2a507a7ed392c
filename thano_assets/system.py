"""Small things asked of the operating system, in one place."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
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


_LITTLE = 1 << 20  # bytes; with less free, an input/output error of SQLite's is one of space


def no_space(error: BaseException, folder: Path) -> bool:
    """Whether an error, or what caused it, is that the disk of ``folder`` is full."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        text = str(one)
        if isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left" in text or "database or disk is full" in text or "File too large" in text:
            return True
        if "disk I/O error" in text and shutil.disk_usage(folder).free < _LITTLE:
            return True
        one = one.__cause__ or one.__context__
    return False


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


def is_abandoned(path: Path) -> bool:
    """Whether a scratch file is of a process of this machine that is gone."""
    parts = path.name.removeprefix(_SCRATCH).split("-")
    if len(parts) == 2:  # of a version that did not write the machine
        parts.insert(0, _machine())
    ours = len(parts) == 3 and parts[0] == _machine() and parts[1].isdigit()
    return ours and not process_alive(int(parts[1]))


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; remembered as long as its size and time stay."""
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, time_ns: int) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
