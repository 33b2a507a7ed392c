"""One run's process: ``python -m thano_assets.interfaces.server.worker WORKSPACE ENVIRONMENT FOLDER``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thano_assets.errors import ThanoError
from thano_assets.interfaces.server.answers import result_json
from thano_assets.interfaces.server.runs import Run
from thano_assets.interfaces.server.sessions import confined
from thano_assets.progress import Progress, Task
from thano_assets.resources.environments import open_workspace
from thano_assets.session import Session
from thano_assets.stopping import stoppable, was_stopped

_EVERY = 0.5  # seconds between two reports of progress


class _Noted(Progress):
    """Writes what it is told into the run's events."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def message(self, text: str) -> None:
        self._run.add("message", text=text)

    def warning(self, text: str) -> None:
        self._run.add("warning", text=text)

    def run_started(self, run_id: str) -> None:
        self._run.add("dagster_run", id=run_id)

    @contextmanager
    def task(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        task = _NotedTask(self._run, label, total, unit)
        yield task
        task.note()


class _NotedTask(Task):
    def __init__(self, run: Run, label: str, total: int | None, unit: str) -> None:
        self._run, self._label, self._total, self._unit = run, label, total, unit
        self._done = 0
        self._fields: dict[str, float | str] = {}
        self._began = self._noted = time.monotonic()

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        self._done += amount
        self._fields |= fields
        if time.monotonic() - self._noted >= _EVERY:
            self.note()

    def note(self) -> None:
        self._noted = time.monotonic()
        seconds_left = None
        if self._total and self._done:
            seconds_left = round((self._noted - self._began) * (self._total - self._done) / self._done, 1)
        self._run.add(
            "progress",
            label=self._label,
            step=self._done,
            total=self._total,
            unit=self._unit,
            seconds_left=seconds_left,
            **self._fields,
        )


def work(root: Path, environment: str, folder: Path) -> None:
    """Do a run's statements, and note how they end."""
    run = Run(folder)
    with run.lock(), stoppable():
        if run.events():  # another server's worker was first, or it was cancelled before it began
            return
        asked: dict[str, Any] = run.request
        run.add("started", process=os.getpid())
        try:
            if (folder / "cancel").exists():
                raise KeyboardInterrupt
            workspace = confined(open_workspace(root, create=False, environment=environment))
            with Session(workspace, progress=_Noted(run)) as session:
                result = session.execute(asked["statement"])
                run.add("succeeded", result=result_json(result, workspace))
        except KeyboardInterrupt:
            run.add("cancelled")
        except ThanoError as error:
            run.add("failed", error=error.as_json())
        except BaseException as error:
            if was_stopped(error):
                run.add("cancelled")
                return
            told = ThanoError(f"{type(error).__name__}: {error}", code="run-failed")
            run.add("failed", error=told.as_json())
            raise


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
