"""Long statements: each run in a process of its own, whose story is a file.

A run is a folder, ``server/runs/ID``: ``request.json`` says what was asked, ``events.jsonl`` what has come of
it. Whoever holds the folder's lock is at work, which the kernel ends with the process; so the state of a run
is told by its folder alone, whatever became of the server in the meantime.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from thano_assets.errors import ThanoError, UnknownRun
from thano_assets.interfaces.server.store import now

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace

#: Events after which nothing more happens.
ENDED = ("succeeded", "failed", "cancelled")
_ID = re.compile(r"[0-9a-f]{32}")
_LOOK_SECONDS = 0.2
_SIGN_OF_LIFE = 15.0  # seconds of silence after which a follower is told that the server lives
_PATIENCE = 20.0  # seconds that a process has to stop once it was asked to


class Run:
    """One run, as its folder tells it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name

    @property
    def request(self) -> dict[str, Any]:
        """What was asked: ``statement``, ``kind``, ``created``, ``token``."""
        return dict(json.loads((self.folder / "request.json").read_text(encoding="utf-8")))

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """What has happened, oldest first, without the first ``after``; numbered from 1."""
        try:
            text = (self.folder / "events.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1]  # a line that is being written is read later
        return [
            {"number": number, **json.loads(line)}
            for number, line in enumerate(whole.splitlines(), start=1)
            if number > after
        ]

    def add(self, event: str, **facts: Any) -> None:
        """Note what has happened: one line, in one write."""
        line = json.dumps({"event": event, "time": now(), **facts}, ensure_ascii=False) + "\n"
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as out:
            out.write(line)
            out.flush()
            if event in ENDED:
                os.fsync(out.fileno())

    def lock(self, timeout: float = -1) -> FileLock:
        """Held by the process that does the work, for as long as it lives."""
        return FileLock(self.folder / "run.lock", timeout=timeout)

    @property
    def is_at_work(self) -> bool:
        """Whether a process is at it."""
        try:
            with self.lock(timeout=0):
                return False
        except Timeout:
            return True

    def state(self, dagster_url: str) -> dict[str, Any]:
        """The run as an answer tells it."""
        asked, events = self.request, self.events()
        kinds = {event["event"]: event for event in events}  # the latest of each
        end = next((event for event in events if event["event"] in ENDED), None)
        begun = kinds.get("started")
        state = end["event"] if end else "running" if begun else "queued"
        found: dict[str, Any] = {
            "id": self.id,
            "state": state,
            "statement": asked["statement"],
            "kind": asked["kind"],
            "created": asked["created"],
            "started": begun and begun["time"],
            "ended": end and end["time"],
            "progress": None,
            "messages": [event["text"] for event in events if event["event"] in ("message", "warning")],
            "dagster_run": None,
            "result": end.get("result") if end else None,
            "error": end.get("error") if end else None,
        }
        if "progress" in kinds and not end:
            found["progress"] = {
                name: value
                for name, value in kinds["progress"].items()
                if name not in ("event", "time", "number")
            }
        if "dagster_run" in kinds:
            run_id = kinds["dagster_run"]["id"]
            found["dagster_run"] = {"id": run_id, "url": f"{dagster_url.rstrip('/')}/runs/{run_id}"}
        return found


class Runs:
    """The runs of a workspace, and the thread that begins those that wait and buries those that were killed.

    Args:
        workspace: Where the statements run.
        at_a_time: How many go on at once; others wait.
    """

    def __init__(self, workspace: Workspace, at_a_time: int) -> None:
        self._workspace, self._most = workspace, at_a_time
        self._folder = workspace.server / "runs"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._guard = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="thano-runs", daemon=True)
        self._thread.start()

    def start(self, statement: str, kind: str, token: str | None) -> Run:
        """Note what is to be run; it begins when one of the places is free."""
        folder = self._folder / uuid.uuid4().hex
        beside = folder.with_name(f".{folder.name}")
        beside.mkdir(parents=True)
        asked = {
            "statement": statement,
            "kind": kind,
            "created": now(),
            "token": token,
        }
        (beside / "request.json").write_text(json.dumps(asked, ensure_ascii=False), encoding="utf-8")
        beside.rename(folder)
        run = Run(folder)
        self._tend()
        return run

    def get(self, run_id: str) -> Run:
        """A run by its id.

        Raises:
            UnknownRun: there is none.
        """
        if not _ID.fullmatch(run_id) or not (self._folder / run_id / "request.json").is_file():
            raise UnknownRun(f"There is no run {run_id[:40]}.", hint="GET /api/v1/runs lists them.")
        return Run(self._folder / run_id)

    def all(self) -> list[Run]:
        """Every run, newest first."""
        found = [Run(path) for path in self._folder.iterdir() if _ID.fullmatch(path.name)]
        return sorted(found, key=lambda run: run.request["created"], reverse=True)

    def cancel(self, run: Run) -> None:
        """Have a run stop; nothing of it stays. One that has ended is left as it is."""
        with self._guard:
            events = run.events()
            if any(event["event"] in ENDED for event in events):
                return
            begun = next((event for event in events if event["event"] == "started"), None)
            child = self._children.get(run.id)
            if begun is None and child is None:
                run.add("cancelled")
                return
            (run.folder / "cancel").touch()  # in case that the process is not yet listening
            process = begun["process"] if begun else None if child is None else child.pid
            if process is not None and run.is_at_work:
                os.kill(process, signal.SIGTERM)

    async def wait(self, run: Run) -> dict[str, Any]:
        """Wait until a run has ended; its last event.

        Raises:
            ThanoError: the server is stopped before that.
        """
        async for event in self.follow(run):
            if event is not None and event["event"] in ENDED:
                return event
        raise ThanoError("The server is being stopped; the run goes on.", hint=f"Its id is {run.id}.")

    async def follow(self, run: Run, after: int = 0) -> AsyncIterator[dict[str, Any] | None]:
        """Events as they happen, until the run has ended; ``None`` now and then, where nothing happens.

        Holds no thread: any number may follow runs without keeping others waiting.
        """
        quiet = 0.0
        while not self._closed.is_set():
            events = await asyncio.to_thread(run.events, after)
            for event in events:
                yield event
                after = event["number"]
                if event["event"] in ENDED:
                    return
            quiet = 0.0 if events else quiet + _LOOK_SECONDS
            if quiet > _SIGN_OF_LIFE:
                yield None
                quiet = 0.0
            await asyncio.sleep(_LOOK_SECONDS)

    def end_waiting(self) -> None:
        """Let nobody wait for a run any more, and begin none."""
        self._closed.set()

    def close(self) -> None:
        """Begin no more runs; those at work go on, and those that wait are begun by the next server."""
        self.end_waiting()
        self._thread.join(timeout=5)

    def _look(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            self._tend()

    def _tend(self) -> None:
        with self._guard:
            if self._closed.is_set():
                return
            waiting, at_work = [], 0
            for run in self.all():
                if (run.folder / "ended").exists():
                    continue
                self._end_what_does_not_stop(run)
                child = self._children.get(run.id)
                if child is not None and child.poll() is None:
                    at_work += 1
                    continue
                self._children.pop(run.id, None)
                events = {event["event"] for event in run.events()}
                if events & set(ENDED):
                    (run.folder / "ended").touch()  # it need not be looked at again
                elif run.is_at_work:
                    at_work += 1
                elif "started" in events or child is not None:
                    error = ThanoError(
                        "The run's process ended before its work did.",
                        hint="Ask for it again; a training goes on where it was.",
                        code="run-failed",
                    )
                    how = "cancelled" if (run.folder / "cancel").exists() else "failed"
                    run.add(how, error=error.as_json())
                else:
                    waiting.append(run)
            for run in list(reversed(waiting))[: max(0, self._most - at_work)]:
                self._begin(run)

    def _end_what_does_not_stop(self, run: Run) -> None:
        """Kill a process that was asked to stop and has not: nothing of a killed run is kept either."""
        try:
            asked = (run.folder / "cancel").stat().st_mtime
        except FileNotFoundError:
            return
        if time.time() - asked > _PATIENCE and run.is_at_work:
            process = next((event["process"] for event in run.events() if event["event"] == "started"), None)
            if process is not None:
                os.kill(process, signal.SIGKILL)

    def _begin(self, run: Run) -> None:
        command = [sys.executable, "-m", "thano_assets.interfaces.server.worker"]
        production = self._workspace.production
        environment = "" if production is None else self._workspace.root.name
        command += [str((production or self._workspace).root), environment, str(run.folder)]
        with (run.folder / "log.txt").open("ab") as log:
            self._children[run.id] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it outlives the server, whose Ctrl-C is not meant for it
            )
