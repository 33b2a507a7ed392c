"""Progress as lines in a Dagster run's log, for runs that nobody watches at a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thano_assets.progress import Progress, Task

#: Seconds between two lines of progress in the log of a run.
_LOG_EVERY = 10.0


class _LogTask(Task):
    def __init__(self, log: Any, label: str, total: int | None, unit: str) -> None:
        self._log, self._label, self._total, self._unit = log, label, total, unit
        self._done = 0
        self._started = self._told = time.monotonic()

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._told < _LOG_EVERY:
            return
        self._told = now
        text = (
            f"{self._label}: {self._done:,}"
            + (f" of {self._total:,}" if self._total else "")
            + f" {self._unit}"
        )
        if self._total and self._done:
            text += f", {(now - self._started) * (self._total / self._done - 1):.0f} s left"
        for name, value in fields.items():
            text += f", {name} {value:.4g}" if isinstance(value, float) else f", {name} {value}"
        self._log.info(text)


class LogProgress(Progress):
    """Messages, warnings and the progress of tasks, given to a logger."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def message(self, text: str) -> None:
        self._log.info(text)

    def warning(self, text: str) -> None:
        self._log.warning(text)

    @contextmanager
    def task(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        self._log.info(f"{label}: starting" + (f", {total:,} {unit}" if total else ""))
        yield _LogTask(self._log, label, total, unit)
