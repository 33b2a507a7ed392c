"""Locks of the kernel's for many readers or one writer, over threads and processes.

They end with their holder, so nothing is ever left locked; compared in ``docs/decisions/filelock.md``.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from ..system import process_alive

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the portable lock is used there

HAS_KERNEL_LOCKS = fcntl is not None

_ANNOUNCE_AFTER = 0.5  # seconds of waiting before a person is told
_ANNOUNCE_EVERY = 30.0
_POLL_SHORTEST, _POLL_LONGEST = 0.002, 0.02


class Holder(NamedTuple):
    """Who took the lock last: process id, command line and Unix time."""

    pid: int
    command: str
    since: float

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


class KernelLock:
    """A lock file for many readers or one writer, over threads and processes alike.

    Taking it goes through a second lock, the gate, which a waiting writer keeps: readers that come later
    queue behind it, so a stream of readers cannot starve a writer. Waiting polls, which keeps it open to
    Ctrl-C in any thread and lets it tell who is waited for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._gate_path = path.with_name(path.name + ".gate")

    @contextmanager
    def hold(self, exclusive: bool, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Hold the lock, waiting as long as it takes."""
        try:
            gate, file = self._open(self._gate_path), self._open(self.path)
        except OSError:
            if exclusive or os.access(self.path.parent, os.W_OK):
                raise
            # In a folder that cannot be written nobody writes: reading needs no lock.
            yield
            return
        with gate, file:  # closing a file frees its lock
            waiting = _Waiting(on_wait, self.holder)
            waiting.until(lambda: _try_flock(gate, exclusive=True))
            waiting.until(lambda: _try_flock(file, exclusive=exclusive))
            fcntl.flock(gate, fcntl.LOCK_UN)
            self._sign(file)
            yield

    @staticmethod
    def _open(path: Path) -> IO[str]:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        return os.fdopen(descriptor, "r+", encoding="utf-8")

    @staticmethod
    def _sign(file: IO[str]) -> None:
        note = json.dumps({"pid": os.getpid(), "command": _command_line(), "since": time.time()})
        try:
            os.truncate(file.fileno(), 0)
            os.pwrite(file.fileno(), note.encode(), 0)
        except OSError:  # a full disk: the note is a courtesy, the lock is held
            return

    def holder(self) -> Holder | None:
        """Who took the lock last, if that process still lives."""
        try:
            note = Holder(**json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return note if process_alive(note.pid) else None


class PortableLock:
    """The same over ``filelock.ReadWriteLock``, for systems without ``fcntl``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def hold(self, exclusive: bool, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Hold the lock, waiting as long as it takes."""
        from filelock import ReadWriteLock, Timeout

        lock = ReadWriteLock(self.path.with_name(self.path.name + ".db"), is_singleton=False)
        acquire = lock.acquire_write if exclusive else lock.acquire_read

        def attempt() -> bool:
            try:
                acquire(timeout=0)
            except Timeout:
                return False
            return True

        try:
            _Waiting(on_wait, lambda: None).until(attempt)
            try:
                yield
            finally:
                lock.release()
        finally:
            lock.close()


def _try_flock(file: IO[str], exclusive: bool) -> bool:
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Waiting:
    """Polls with growing, jittered pauses and tells about it once it takes long."""

    def __init__(self, on_wait: Callable[[str], None], holder: Callable[[], Holder | None]) -> None:
        self.on_wait, self.holder = on_wait, holder
        self.begun = time.monotonic()
        self.tell_at = self.begun + _ANNOUNCE_AFTER

    def until(self, attempt: Callable[[], bool]) -> None:
        pause = _POLL_SHORTEST
        while not attempt():
            now = time.monotonic()
            if now >= self.tell_at:
                holder = self.holder()
                who = "this process itself" if holder and holder.pid == os.getpid() else str(holder)
                waited = f", {now - self.begun:.0f} s so far" if now - self.begun >= 1 else ""
                self.on_wait(
                    f"Waiting for the warehouse: {who if holder else 'another process'} uses it{waited}."
                )
                self.tell_at = now + _ANNOUNCE_EVERY
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 1.5, _POLL_LONGEST)


def _command_line() -> str:
    arguments = [Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python", *sys.argv[1:]]
    command = shlex.join(arguments)
    return command if len(command) <= 80 else command[:79] + "…"


def lock_beside(path: Path, portable: bool) -> KernelLock | PortableLock:
    """The lock that guards the file at ``path``; the ``portable`` one does without ``fcntl``."""
    lock_path = path.with_name(path.name + ".lock")
    return PortableLock(lock_path) if portable else KernelLock(lock_path)
