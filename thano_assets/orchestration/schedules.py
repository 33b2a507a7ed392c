"""Schedules and watched files: Dagster looks by itself, and makes again what is out of date by then.

Both ask the planner, as ``thano run`` does, so an unchanged workspace costs a look and no run. They stand
and fall with the option in the statement: without it they are gone when the code location is loaded again.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from thano_assets.assets.runtime import Runtime
from thano_assets.assets.tables import checks
from thano_assets.catalog import catalog_of
from thano_assets.errors import ThanoError
from thano_assets.graph import Graph, Node, NodeKind
from thano_assets.graph.build import Key
from thano_assets.orchestration import failures, run_tags
from thano_assets.orchestration.due import due
from thano_assets.orchestration.factory import op_name
from thano_assets.orchestration.metadata import asset_key
from thano_assets.orchestration.running_ui import reload_user_interface
from thano_assets.planning import PlannedAsset
from thano_assets.planning.plan import downstream, upstream
from thano_assets.resources.files import states
from thano_assets.sql.statements import Copy

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace

#: Seconds between two looks at watched files; what changed must be the same at two looks.
WATCH_SECONDS = 15

_SCHEDULED = (NodeKind.TABLE, NodeKind.MODEL, NodeKind.PREDICTION)
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def schedules(graph: Graph, workspace: Workspace) -> list[dg.ScheduleDefinition]:
    """A schedule for each asset whose statement has the option ``schedule``; each is on from the start."""
    found = []
    for node in graph.nodes.values():
        cron = node.entry.option("schedule") if node.kind in _SCHEDULED else None
        if cron:
            found.append(_schedule(node, str(cron), graph, workspace))
    return found


def watchers(graph: Graph, workspace: Workspace) -> list[dg.SensorDefinition]:
    """A sensor for each table whose COPY has ``watch=True``; each is on from the start."""
    return [
        _watcher(node, graph, workspace)
        for node in graph.nodes.values()
        if node.kind is NodeKind.RAW and _watched_paths(node)
    ]


def _schedule(node: Node, cron: str, graph: Graph, workspace: Workspace) -> dg.ScheduleDefinition:
    name = op_name(node.key)

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return _request(context.instance, name, workspace, node.key, descendants=False)

    return dg.ScheduleDefinition(
        name=name,
        cron_schedule=cron.lower() if cron.startswith("@") else cron,
        target=_target(graph, [node.key]),
        execution_fn=evaluate,
        execution_timezone=workspace.settings.dagster.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=_described(node, f"Makes {'/'.join(node.key)} again when it is out of date"),
    )


def _watcher(node: Node, graph: Graph, workspace: Workspace) -> dg.SensorDefinition:
    name = f"watch_{op_name((NodeKind.TABLE.value, node.name))}"

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            signature = file_signature(_watched_paths(node), workspace)
        except ThanoError as error:
            return dg.SkipReason(str(error))
        before: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
        if signature == before.get("handled"):
            return dg.SkipReason("No file has changed.")
        if signature != before.get("seen"):
            context.update_cursor(json.dumps({**before, "seen": signature}))
            return dg.SkipReason("Files have changed; they are read once they are left alone.")
        answer = _request(context.instance, name, workspace, node.key, descendants=True)
        if isinstance(answer, _Busy):
            return answer
        # Handled whatever comes of it: a file that cannot be read fails once, not every few seconds.
        context.update_cursor(json.dumps({"seen": signature, "handled": signature}))
        return answer if isinstance(answer, dg.SkipReason) else dg.SensorResult(run_requests=[answer])

    return dg.SensorDefinition(
        name=name,
        target=_target(graph, downstream(graph, [node.key])),
        evaluation_fn=evaluate,
        minimum_interval_seconds=WATCH_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=_described(node, f"Watches the files of {node.name}; makes again what hangs on them"),
    )


def file_marks(graph: Graph, workspace: Workspace) -> list[dg.SensorDefinition]:
    """A sensor that has the page mark assets whose files changed; none where no statement reads a file.

    Dagster compares files with those that it saw when it loaded the code location, so that is loaded again.
    """
    paths = sorted(
        {
            statement.path
            for node in graph.nodes.values()
            if node.kind is NodeKind.RAW
            for statement in node.entry.statements
            if isinstance(statement, Copy) and statement.path is not None
        }
    )
    if not paths:
        return []

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        now = {path: _state_of(path, workspace) for path in paths}
        before: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
        changed = [path for path in paths if path in before and before[path] != now[path]]
        context.update_cursor(json.dumps(now))
        if not changed:
            return dg.SkipReason("No file has changed.")
        reload_user_interface(workspace)
        return dg.SkipReason(f"Changed: {', '.join(changed)}. The page marks what reads them.")

    return [
        dg.SensorDefinition(
            name="mark_changed_files",
            evaluation_fn=evaluate,
            minimum_interval_seconds=WATCH_SECONDS,
            default_status=dg.DefaultSensorStatus.RUNNING,
            description="Looks at the files that COPY reads, and has the page mark those that changed; "
            "starts no run.",
        )
    ]


def _state_of(path: str, workspace: Workspace) -> str:
    try:
        return file_signature([path], workspace)
    except ThanoError as error:  # a file that is gone is a change too
        return str(error)


def _target(graph: Graph, keys: Sequence[Key]) -> dg.AssetSelection:
    """The assets that a run may make: ``keys`` and what they stand on."""
    made = [node for node in upstream(graph, keys) if node.kind is not NodeKind.MODEL_VERSION]
    return dg.AssetSelection.assets(*(asset_key(node.key) for node in made))


def _watched_paths(node: Node) -> list[str]:
    return [
        statement.path
        for statement in node.entry.statements
        if isinstance(statement, Copy) and statement.path is not None and statement.options.get("watch")
    ]


def file_signature(paths: Sequence[str], workspace: Workspace) -> str:
    """Names, sizes and times of the files of ``paths``, hashed; nothing is read.

    Raises:
        PathRefused, DataFileError: a path leads nowhere, or out of the workspace.
    """
    told = [state for path in paths for state in states(workspace, path)]
    return hashlib.sha256(repr(sorted(told)).encode()).hexdigest()[:32]


class _Busy(dg.SkipReason):
    """What is out of date is being made already; the next look may find something else."""


# What was asked for a moment ago, until the run shows up in the instance: by asset, who asked, and when.
_asked: dict[tuple[Path, Key], tuple[str, float]] = {}
_asking = threading.Lock()
_ASKED_SECONDS = 60.0


def _request(
    instance: dg.DagsterInstance, who: str, workspace: Workspace, key: Key, *, descendants: bool
) -> dg.RunRequest | dg.SkipReason:
    """A run of what is out of date, or why there is none.

    A schedule and a sensor that look at the same moment ask for one run: the second one is told to wait.
    """
    try:
        planned = due(workspace, [key], instance, descendants=descendants)
    except ThanoError as error:
        return dg.SkipReason(str(error))
    due_now = [one for one in planned if one.made]
    if not due_now:
        return dg.SkipReason(f"Nothing is out of date: {_shown(planned) or '/'.join(key)}.")
    keys = {one.node.key for one in due_now}
    busy = _at_work(instance, keys)
    if busy is not None:
        return busy
    work, why_not = _allowed(due_now, workspace)
    work, failed = _untried(work, instance, workspace)
    if not work:
        return dg.SkipReason(" ".join(filter(None, (why_not, failed))))
    asked = next((one.node for one in planned if one.node.key == key), work[-1].node)
    with _asking:
        now = time.monotonic()
        for one in work:
            asker, when = _asked.get((workspace.root, one.node.key), ("", -_ASKED_SECONDS))
            if asker != who and now - when < _ASKED_SECONDS:
                return _Busy(f"{asker} has just asked for {'/'.join(one.node.key)}.")
        _asked.update({(workspace.root, one.node.key): (who, now) for one in work})
    return dg.RunRequest(
        asset_selection=[asset_key(one.node.key) for one in work],
        tags={
            run_tags.STATEMENT: run_tags.shortened(asked.entry.text.rstrip().rstrip(";")),
            run_tags.INCREMENTAL: "true",
            run_tags.REASON: run_tags.shortened(_shown(work)),
        },
    )


def _at_work(instance: dg.DagsterInstance, keys: set[Key]) -> _Busy | None:
    """Whoever makes one of ``keys`` already: a schedule, a sensor or a person."""
    wanted = {asset_key(key) for key in keys}
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED), limit=100):
        if run.asset_selection is None or run.asset_selection & wanted:
            return _Busy(f"The run {run.run_id} has not ended yet.")
    return None


def _untried(
    work: Sequence[PlannedAsset], instance: dg.DagsterInstance, workspace: Workspace
) -> tuple[list[PlannedAsset], str]:
    """What of ``work`` has not failed on the very same inputs before, nor stands on such; and what failed."""
    graph = Graph(catalog_of(workspace).entries())
    failed: set[Key] = set()
    sentences = []
    for one in work:
        key = one.node.key
        run = failures.failed_before(instance, graph, key, workspace)
        if run is not None:
            why = run.tags.get(run_tags.ERROR, "").rstrip(".")
            sentences.append(
                f"{'/'.join(key)} failed in the run {run.run_id} ({why}); it is made again when its file, "
                "statement or settings change, or by hand."
            )
        if run is not None or any(read in failed for read in one.node.reads):
            failed.add(key)
    return [one for one in work if one.node.key not in failed], " ".join(sentences)


def _allowed(work: Sequence[PlannedAsset], workspace: Workspace) -> tuple[list[PlannedAsset], str]:
    """What of ``work`` stands on no table whose rows break an EXPECT, and what is broken.

    The run that made such a table has failed and told it; failing again at every look would tell nothing new.
    """
    making = {one.node.key for one in work}
    tables = {key[1] for one in work for key in one.node.reads if key not in making}
    broken = checks.broken(tables, Runtime.of(workspace))
    names = {checks.expectation(entry).table.casefold() for entry, _ in broken}
    blocked: set[Key] = set()
    for one in work:
        if any(key in blocked or _is_one_of(key, names, making) for key in one.node.reads):
            blocked.add(one.node.key)
    sentences = " ".join(outcome.description for _, outcome in broken)
    return [one for one in work if one.node.key not in blocked], sentences


def _is_one_of(key: Key, tables: set[str], making: set[Key]) -> bool:
    return key not in making and NodeKind(key[0]).is_relation and key[1].casefold() in tables


def _shown(planned: Sequence[PlannedAsset]) -> str:
    return "; ".join(f"{'/'.join(one.node.key)}: {one.reason}" for one in planned)


def _described(node: Node, what: str) -> str:
    return f"{what}. Its statement: {' '.join(node.entry.text.split()).rstrip('; ')}"
