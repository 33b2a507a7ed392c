"""A run that is cancelled registers nothing, promotes nothing and changes no table."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import pytest

from tests.session.conftest import traces, write_rows
from thano_assets.progress import Progress, Task
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

BUILD = (
    "BUILD MODEL m USING ElectraEn OPTIONS (epochs=2, batch_size=4, baseline=False, overwrite=True, eval_fraction=0.5, "
    "seed={}{}) "
    "AS SELECT review AS text, label FROM rows"
)
GATE = ", promote_if='accuracy >= 0'"


class _At(Progress):
    """Does something once, when a piece of work with a certain label reports."""

    def __init__(self, label: str) -> None:
        self._label = label
        self.do: Callable[[], None] | None = None

    def _reached(self, label: str) -> None:
        if self.do is not None and label.startswith(self._label):
            do, self.do = self.do, None
            do()

    @contextmanager
    def task(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        reached = self._reached

        class Told(Task):
            def advance(self, amount: int = 1, **fields: float | str) -> None:
                reached(label)

        yield Told()


class _Dropping:
    """Is stopped where Python drops what a handler raises: while an object is thrown away."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def _session(workspace: Workspace, progress: Progress) -> Session:
    write_rows(
        workspace, "rows.jsonl", [{"review": f"{'ab'[n % 2]} {'c' * n}", "label": n % 2} for n in range(40)]
    )
    session = Session(workspace, progress=progress)
    session.execute("COPY rows FROM 'rows.jsonl'")
    return session


def _newest(session: Session) -> dg.DagsterRun:
    return session._runner.instance.get_runs(limit=1)[0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_stops_the_training(small_workspace: Workspace) -> None:
    progress = _At("Training")
    with _session(small_workspace, progress) as session:
        session.execute(BUILD.format(1, ""))
        before = traces(session)

        def drop() -> None:
            _Dropping()  # its exception is printed, and the training goes on

        progress.do = drop
        with pytest.raises(KeyboardInterrupt):
            session.execute(BUILD.format(2, ""))
        assert traces(session) == before
        assert _newest(session).status is dg.DagsterRunStatus.CANCELED


@pytest.mark.parametrize(
    ("label", "options"),
    [("Training", ""), ("Training", GATE), ("Predicting", GATE)],
    ids=["training", "training with a gate", "judging"],
)
def test_a_run_that_is_cancelled_without_a_signal_leaves_the_old_version(
    small_workspace: Workspace, label: str, options: str
) -> None:
    """As when the signal of Terminate is lost: only Dagster's record says that the run was cancelled."""
    progress = _At(label)
    with _session(small_workspace, progress) as session:
        session.execute(BUILD.format(1, options))
        before = traces(session)
        instance = session._runner.instance

        def cancel() -> None:
            (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
            instance.report_run_canceling(run)

        progress.do = cancel
        with pytest.raises(KeyboardInterrupt):
            session.execute(BUILD.format(2, options))
        assert progress.do is None
        assert traces(session) == before
        assert _newest(session).status is dg.DagsterRunStatus.CANCELED


def test_a_table_is_not_replaced_by_a_run_that_was_cancelled(small_workspace: Workspace) -> None:
    with _session(small_workspace, Progress()) as session:
        session.execute("CREATE TABLE other AS SELECT 1 AS a")
        before = traces(session)
        instance = session._runner.instance
        cancelled: list[str] = []

        def cancel() -> None:
            while not cancelled:
                for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
                    instance.report_run_canceling(run)
                    cancelled.append(run.run_id)
                time.sleep(0.01)

        thread = threading.Thread(target=cancel)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                session.execute(
                    "CREATE OR REPLACE TABLE other AS SELECT sum(sin(i)) AS a FROM range(200_000_000) t(i)"
                )
        finally:
            cancelled.append("")
            thread.join()
        assert traces(session) == before
        assert _newest(session).status is dg.DagsterRunStatus.CANCELED
