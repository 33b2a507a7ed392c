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

    def run_started(self, run_id: str) -> None:
        """A Dagster run that does the work has begun."""

    @contextmanager
    def task(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        """Enter a piece of work of ``total`` units (``None`` where unknown)."""
        yield Task()


class Relay(Progress):
    """Passes reports on to another receiver, which may be exchanged.

    Attributes:
        to: who is told at present.
    """

    def __init__(self, to: Progress) -> None:
        self.to = to

    def message(self, text: str) -> None:
        """See :class:`Progress`."""
        self.to.message(text)

    def warning(self, text: str) -> None:
        """See :class:`Progress`."""
        self.to.warning(text)

    def run_started(self, run_id: str) -> None:
        """See :class:`Progress`."""
        self.to.run_started(run_id)

    @contextmanager
    def task(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        """See :class:`Progress`."""
        with self.to.task(label, total, unit) as task:
            yield task


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
