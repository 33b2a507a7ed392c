"""Child processes that serve web pages: started together, watched, and stopped without a remainder.

Each child runs in a process group of its own, so that stopping the group reaches everything it started. A
guard process holds the other end of a pipe: should the starting process be killed outright, the guard stops
the groups in its place.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HOST = "127.0.0.1"

#: Seconds that a page may take to answer; a cold, busy machine with two cores needs about 40.
START_SECONDS = 180.0
#: Seconds between the request to end and the end without asking.
GRACE_SECONDS = 12.0
_LOG_TAIL = 20

# Reads group ids from a pipe. "done" means all was stopped properly; an end of the pipe without it means that
# the writer was killed.
_GUARD = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lines = sys.stdin.read().split()
if not lines or lines[-1] != "done":
    def send(number):
        left = 0
        for group in lines:
            try:
                os.killpg(int(group), number)
                left += 1
            except OSError:
                pass
        return left
    send(signal.SIGTERM)
    until = time.monotonic() + float(sys.argv[1])
    while send(0) and time.monotonic() < until:
        time.sleep(0.1)
    send(signal.SIGKILL)
"""


@dataclass
class Service:
    """One child process and how to tell that it is ready."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    log: Path
    url: str | None = None
    probe: str | None = None
    process: subprocess.Popen[bytes] | None = None
    _followed: int = field(default=0, repr=False)

    def start(self) -> int:
        """Start the child in a new process group; returns the group's id."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """The child's exit code, ``None`` while it runs."""
        return None if self.process is None else self.process.poll()

    def answers(self) -> bool:
        """Whether the page is there; a service without a page counts as ready once it runs."""
        return self.probe is None or responds(self.probe)

    def follow(self, out: IO[str]) -> None:
        """Copy what was added to the log since the last call."""
        with self.log.open("rb") as log:
            log.seek(self._followed)
            fresh = log.read()
        # Only whole lines, so that two services do not share one.
        fresh = fresh[: fresh.rfind(b"\n") + 1]
        self._followed += len(fresh)
        for line in fresh.decode("utf-8", "replace").splitlines():
            print(f"{self.name} | {line}", file=out)

    def tail(self) -> str:
        """The last lines of the log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL:])


class Group:
    """The children together: started in an order that is safe, stopped without a remainder."""

    def __init__(self, services: list[Service]) -> None:
        self.services = services
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Group:
        # The guard ignores Ctrl-C and outlives this process by the seconds it needs.
        self._guard = subprocess.Popen(
            [sys.executable, "-c", _GUARD, str(GRACE_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._guard is not None and self._guard.stdin is not None:
            self._tell_guard("done")
            self._guard.stdin.close()
            self._guard.wait()

    def start(self, first_alone: bool, verbose: bool) -> Service | None:
        """Start every service and wait for its page; returns the one that died or never answered.

        Args:
            first_alone: start the others only when the first one answers.
            verbose: copy the logs to standard error meanwhile.
        """
        first, *others = self.services
        self._start(first)
        if first_alone:
            failed = self._wait([first], verbose)
            if failed is not None:
                return failed
        for service in others:
            self._start(service)
        return self._wait(self.services, verbose)

    def dead(self) -> Service | None:
        """The first child that has ended by itself."""
        return next((service for service in self.services if service.exit_code is not None), None)

    def follow(self) -> None:
        """Copy new log lines to standard error."""
        for service in self.services:
            if service.process is not None:
                service.follow(sys.stderr)

    def stop(self) -> None:
        """End every process group: ask first, insist after :data:`GRACE_SECONDS`. Further signals wait."""
        groups = [service.process.pid for service in self.services if service.process is not None]
        with _undisturbed():
            for group in groups:
                _signal_group(group, signal.SIGTERM)
            deadline = time.monotonic() + GRACE_SECONDS
            while time.monotonic() < deadline and any(self._alive(group) for group in groups):
                time.sleep(0.05)
            for group in groups:
                _signal_group(group, signal.SIGKILL)
            for service in self.services:
                if service.process is not None:
                    service.process.wait()

    def _start(self, service: Service) -> None:
        self._tell_guard(str(service.start()))

    def _wait(self, services: list[Service], verbose: bool) -> Service | None:
        deadline = time.monotonic() + START_SECONDS
        waiting = list(services)
        while waiting:
            dead = self.dead()
            if dead is not None:
                return dead
            waiting = [service for service in waiting if not service.answers()]
            if waiting and time.monotonic() > deadline:
                return waiting[0]
            if verbose:
                self.follow()
            time.sleep(0.2)
        return None

    def _alive(self, group: int) -> bool:
        for service in self.services:
            if service.process is not None and service.process.pid == group:
                service.process.poll()  # reap the leader: a zombie would keep the group's number
        return _signal_group(group, 0)

    def _tell_guard(self, line: str) -> None:
        if self._guard is None or self._guard.stdin is None:
            return
        try:
            self._guard.stdin.write(line.encode() + b"\n")
            self._guard.stdin.flush()
        except BrokenPipeError:
            # Without a guard the pages still work; only an outright kill would leave them behind.
            self._guard.stdin = None


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of the loopback interface now."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still fading counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def responds(url: str) -> bool:
    """Whether ``url`` answers with success within two seconds; proxies of the environment are not asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; False when nothing of it is left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says this of a group of zombies
        return False
    return True


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back: stopping is already under way."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    except ValueError:  # not the main thread, so no signal arrives here
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
