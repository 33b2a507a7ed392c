"""Runs of the graph in the caller's process, recorded in the workspace's Dagster instance."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from filelock import FileLock

from thano_assets.assets.runtime import Outcome, collecting_outcomes
from thano_assets.catalog import Entry
from thano_assets.errors import ExpectationFailed, RunFailed, ThanoError
from thano_assets.graph import Node
from thano_assets.graph.build import Key
from thano_assets.orchestration import run_tags
from thano_assets.orchestration.borrowed_records import note_borrowed, with_borrowed
from thano_assets.orchestration.dagster_compat import (
    AssetCheckFailed,
    open_instance,
    run_assets,
)
from thano_assets.orchestration.factory import asset_key, build_assets
from thano_assets.orchestration.records import Record, read_records
from thano_assets.progress import current
from thano_assets.system import process_alive, remove_abandoned

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace

# Dagster resets Python's logging at the start of each run while holding its locks; two runs in two
# threads of one process then wait for each other for ever.
_one_run_at_a_time = threading.Lock()

_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class Runner:
    """Materializes nodes as Dagster runs.

    Args:
        workspace: Whose Dagster instance keeps the runs.
        resources: Dagster resources that the assets need.
        verbose: Let Dagster's own log lines through to the terminal.
        parent_run: The run of the job that the runs are part of.
    """

    def __init__(
        self,
        workspace: Workspace,
        resources: dict[str, object],
        *,
        verbose: bool = False,
        parent_run: str | None = None,
    ) -> None:
        self._workspace = workspace
        self._resources = resources
        self._parent = {} if parent_run is None else {run_tags.PARENT: parent_run}
        self._log_level = "INFO" if verbose else "CRITICAL"
        self._instance: dg.DagsterInstance | None = None
        self._nothing: tempfile.TemporaryDirectory[str] | None = None

    @property
    def instance(self) -> dg.DagsterInstance:
        """The workspace's Dagster instance, made on first use by one process at a time."""
        if self._instance is None:
            if not self._workspace.is_there:  # to look at a history of nothing makes no workspace
                self._nothing = tempfile.TemporaryDirectory(prefix="thano-nothing-")
                self._instance = open_instance(Path(self._nothing.name))
            else:
                self._instance = _open_instance(self._workspace)
        return self._instance

    def close(self) -> None:
        """Let go of the instance."""
        if self._instance is not None:
            self._instance.dispose()
            self._instance = None
        if self._nothing is not None:
            self._nothing.cleanup()
            self._nothing = None

    def run(
        self,
        nodes: Iterable[Node],
        graph_nodes: Iterable[Node],
        tags: dict[str, str],
        outcomes: dict[Key, Outcome],
        *,
        expectations: Mapping[Key, Sequence[Entry]] | None = None,
    ) -> str:
        """Materialize ``nodes`` in one run and return its id.

        Args:
            nodes: What to make.
            graph_nodes: These and everything they stand on.
            tags: Kept with the run.
            outcomes: Is given what each asset gives back, as it is made; after an error too.
            expectations: Entries of EXPECT statements by the key of their table.

        Raises:
            ThanoError: an asset's own complaint about the user's text or data.
            ExpectationFailed: a check kept something from being made. What was made stays, and where that is
                all, a failed check is the outcome's affair.
            RunFailed: anything else that went wrong inside an asset.
            KeyboardInterrupt: the person stopped the run; it is recorded as cancelled.
        """
        nodes, graph_nodes = list(nodes), list(graph_nodes)
        made = {node.key for node in nodes}
        note_borrowed(self._workspace, self.instance, [n.key for n in graph_nodes if n.key not in made])
        selection = {asset_key(key) for key in made}
        definitions = dg.Definitions(
            assets=build_assets(graph_nodes, expectations or {}),
            resources=self._resources,
            executor=dg.in_process_executor,
        )
        started: list[str] = []

        def begun(run_id: str) -> None:
            started.append(run_id)
            current().run_started(run_id)

        with _one_run_at_a_time, collecting_outcomes(outcomes):
            try:
                run_id = run_assets(
                    definitions,
                    selection,
                    self.instance,
                    tags={**tags, **self._parent, run_tags.PROCESS: _process_tag(os.getpid())},
                    log_level=self._log_level,
                    on_created=begun,
                )
            except ThanoError:
                raise
            except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as error:
                _record_cancelled(self.instance, started)
                raise KeyboardInterrupt from error
            except AssetCheckFailed:
                run_id = started[0]
                _refuse_blocked(made, outcomes)
            except Exception as error:
                raise RunFailed(
                    f"{type(error).__name__}: {str(error).strip() or 'no message'}".split("\n")[0],
                    hint="The run's page in the Dagster UI (thano ui) has the whole story; -v shows it here.",
                ) from error
        return run_id

    def records(self, keys: Iterable[Key]) -> dict[Key, Record]:
        """The latest materializations of those of ``keys`` that have one."""
        wanted = list(keys)
        return with_borrowed(self._workspace, read_records(self.instance, wanted), wanted)

    def latest_seconds(self, key: Key) -> float | None:
        """Seconds that the last materialization of ``key`` took, where that is known."""
        event = self.instance.get_latest_materialization_event(asset_key(key))
        if event is None or event.asset_materialization is None:
            return None
        value = event.asset_materialization.metadata.get("seconds")
        found = getattr(value, "value", None)
        return float(found) if isinstance(found, (int, float)) else None

    def forget(self, keys: Iterable[Key]) -> None:
        """Remove the history of assets whose statement is gone."""
        self.instance.wipe_assets([asset_key(key) for key in keys])


def _refuse_blocked(wanted: set[Key], outcomes: Mapping[Key, Outcome]) -> None:
    """Say which check failed where it kept one of ``wanted`` from being made."""
    left = sorted("/".join(key) for key in wanted - outcomes.keys())
    failed = [check.description for one in outcomes.values() for check in one.checks if not check.passed]
    if left:
        raise ExpectationFailed(
            failed[0] if failed else "A check failed.",
            hint=f"Not made because of it: {', '.join(left)}.",
        )


def _open_instance(workspace: Workspace) -> dg.DagsterInstance:
    """Open the instance; the tables of a fresh one are made under a lock (Dagster's own migration races)."""
    home = workspace.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    with FileLock(home / ".init.lock"):
        instance = open_instance(home)
        ready = home / ".ready"
        if not ready.exists():
            instance.get_runs_count()
            instance.all_instigator_state()
            instance.get_latest_materialization_event(dg.AssetKey(["nothing"]))
            ready.touch()
    _close_dead_runs(instance)
    remove_abandoned(workspace.snapshots)
    return instance


def _close_dead_runs(instance: dg.DagsterInstance) -> None:
    """Record as failed the runs whose process on this host is gone (it was killed)."""
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED), limit=50):
        tag = run.tags.get(run_tags.PROCESS, "")
        pid = tag.rpartition(".")[2]
        if pid.isdigit() and tag == _process_tag(int(pid)) and not process_alive(int(pid)):
            instance.report_run_failed(run, "The process that executed this run is gone.")


def _process_tag(pid: int) -> str:
    """A process of this machine in a tag of Dagster's, which has 63 characters at most."""
    return f"{socket.gethostname()}.{pid}"[-63:]


def _record_cancelled(instance: dg.DagsterInstance, run_ids: list[str]) -> None:
    for run_id in run_ids:
        run = instance.get_run_by_id(run_id)
        # Between two steps Dagster takes the stop for a failure; the person knows better.
        if run is not None and run.status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED):
            instance.report_run_canceled(run, "Stopped by the person who asked for it.")
