"""How work in progress is told to whoever asked for it.

Everything that takes time (loading, training, predicting, waiting for a lock) reports to a
:class:`Progress`. The terminal and the notebook draw bars with it, a run in the Dagster UI
writes log lines, tests record it. The base class is silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Task:
    """One measurable piece of work; the base class ignores what it is told."""

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        """Report ``amount`` more units done; ``fields`` are figures to show, such as ``loss``."""


class Progress:
    """Receiver of progress reports; subclasses override what they can show."""

    def message(self, text: str) -> None:
        """A line a person should see once (which base model, which device, where results are kept)."""

    def warning(self, text: str) -> None:
        """A line about something the person may want to change; it is kept in the result too."""

    @contextmanager
    def task(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        """Enter a piece of work of ``total`` units (``None`` where unknown)."""
        yield Task()


SILENT = Progress()

_current: ContextVar[Progress] = ContextVar("thano_progress", default=SILENT)


def current() -> Progress:
    """The progress receiver of the statement that runs in this context."""
    return _current.get()


@contextmanager
def reporting_to(progress: Progress) -> Iterator[Progress]:
    """Make ``progress`` the receiver for everything that runs inside the ``with`` block."""
    token = _current.set(progress)
    try:
        yield progress
    finally:
        _current.reset(token)
