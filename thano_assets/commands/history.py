"""What was made and from what: the rows of SHOW LINEAGE and SHOW RUNS, out of Dagster's event log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from thano_assets.assets.runtime import Runtime
from thano_assets.catalog import Catalog, EntryKind
from thano_assets.errors import UnknownTable, did_you_mean
from thano_assets.graph import Graph, Node, NodeKind
from thano_assets.graph.build import Key, pinned
from thano_assets.orchestration import run_tags
from thano_assets.planning import Mode, Planning, Record
from thano_assets.planning.plan import upstream
from thano_assets.sql.statements import ShowLineage

if TYPE_CHECKING:
    import dagster as dg
    import pyarrow as pa

    from thano_assets.orchestration.runner import Runner
    from thano_assets.resources.registry import ModelVersion

#: Runs that SHOW RUNS shows.
LATEST_RUNS = 50

_LONGEST_ERROR = 500


def lineage(statement: ShowLineage, runtime: Runtime, runner: Runner, catalog: Catalog) -> pa.Table:
    """The assets between the raw files and a table or model, each after what it reads, the named one last.

    Columns: ``asset``, ``kind``, ``statement``, ``data_version``, ``run_id`` (Dagster's), ``time`` (UTC),
    ``rows``, ``files``, ``model_version``, ``mlflow_run_id`` and ``out_of_date``: why, NULL where it is not.

    Raises:
        UnknownTable: no statement makes a table or model of that name.
    """
    import pyarrow as pa

    from thano_assets.planning.observation import observed
    from thano_assets.planning.workspace_state import WorkspaceState

    entries = [found for found in (catalog.relation(statement.name), catalog.model(statement.name)) if found]
    if not entries:
        known = catalog.names(*(kind for kind in EntryKind if kind is not EntryKind.CHECK))
        raise UnknownTable(
            f"No statement makes a table or model {statement.name}.",
            hint=did_you_mean(statement.name, known, "tables and models"),
        ).at(statement.source, statement.name_span.start, len(statement.name_span))
    graph = observed(Graph.around(entries, catalog), runtime.workspace)
    targets: list[Key] = [(entry.kind.value, entry.name) for entry in entries]
    nodes = upstream(graph, targets)
    with WorkspaceState(runtime, runner.records).opened() as state:
        state.prefetch([node.key for node in nodes])
        planned = Planning(state).plan(graph, targets, Mode.INCREMENTAL)
    reasons = {one.node.key: one.reason for one in planned if one.made}
    records = runner.records([node.key for node in nodes])
    rows = []
    for node in nodes:
        record = records.get(node.key)
        version = _version(node, runtime)
        files = record.details.get("files") if record else None
        text = (record.statement if record else None) or node.entry.text
        rows.append(
            {
                "asset": "/".join(node.key),
                "kind": node.kind.value,
                "statement": text.strip().rstrip(";").strip(),
                "data_version": record.data_version if record else None,
                "run_id": (record.run_id or None) if record else None,
                "time": record.time.replace(tzinfo=None, microsecond=0) if record else None,
                "rows": record.rows if record else None,
                "files": ", ".join(files) if isinstance(files, dict) else None,
                "model_version": int(version.version) if version else _answered_by(record),
                "mlflow_run_id": version.run_id if version else None,
                "out_of_date": reasons.get(node.key),
            }
        )
    text_columns = ("asset", "kind", "statement", "data_version", "run_id")
    schema = pa.schema(
        [
            *((name, pa.string()) for name in text_columns),
            ("time", pa.timestamp("ms")),
            ("rows", pa.int64()),
            ("files", pa.string()),
            ("model_version", pa.int64()),
            ("mlflow_run_id", pa.string()),
            ("out_of_date", pa.string()),
        ]
    )
    return pa.Table.from_pylist(rows, schema)


def _answered_by(record: Record | None) -> int | None:
    """The version of the model that a prediction or evaluation has its answers from."""
    number = record.details.get("version") if record else None
    return number if isinstance(number, int) else None


def _version(node: Node, runtime: Runtime) -> ModelVersion | None:
    """The version that answers for a model, or the one that a statement pins."""
    if node.kind is NodeKind.MODEL:
        return runtime.registry.resolve(node.name)
    if node.kind is NodeKind.MODEL_VERSION:
        name, version, alias = pinned(node.name)
        return runtime.registry.resolve(name, version=version, alias=alias)
    return None


def runs(runner: Runner) -> pa.Table:
    """The latest runs, newest first.

    Columns: ``run_id``, ``statement`` (its beginning), ``status``, ``started``
    (UTC), ``seconds``, ``assets``, ``launched_by`` (``thano``, a schedule, a sensor or the Dagster UI) and
    ``error``, in one line, of runs that failed.
    """
    import pyarrow as pa

    instance = runner.instance
    rows = []
    for record in instance.get_run_records(limit=LATEST_RUNS):
        run = record.dagster_run
        started = record.start_time or record.create_timestamp.timestamp()
        done = record.start_time is not None and record.end_time is not None
        chosen = sorted("/".join(key.path) for key in run.asset_selection or ())
        rows.append(
            {
                "run_id": run.run_id,
                "statement": run.tags.get(run_tags.STATEMENT) or run.tags.get("thano/statement"),
                "status": run.status.value.lower(),
                "started": datetime.fromtimestamp(started, UTC).replace(tzinfo=None),
                "seconds": round((record.end_time or 0) - (record.start_time or 0), 2) if done else None,
                "assets": ", ".join(chosen) or "all",
                "launched_by": run_tags.launched_by(run.tags),
                "error": _error(instance, run.run_id) if run.is_failure_or_canceled else None,
            }
        )
    schema = pa.schema(
        [
            ("run_id", pa.string()),
            ("statement", pa.string()),
            ("status", pa.string()),
            ("started", pa.timestamp("ms")),
            ("seconds", pa.float64()),
            ("assets", pa.string()),
            ("launched_by", pa.string()),
            ("error", pa.string()),
        ]
    )
    return pa.Table.from_pylist(rows, schema)


def _error(instance: dg.DagsterInstance, run_id: str) -> str | None:
    """Why a run failed, in one line: the error of its first step that did, or the checks that were broken."""
    import dagster as dg

    wanted = {
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        dg.DagsterEventType.STEP_FAILURE,
        dg.DagsterEventType.RUN_FAILURE,
        dg.DagsterEventType.RUN_CANCELED,
    }
    broken: list[str] = []
    for entry in instance.all_logs(run_id, of_type=wanted):
        event = entry.dagster_event
        if event is None:
            continue
        data: Any = event.event_specific_data
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            if not data.passed:
                broken.append(data.description or data.check_name)
            continue
        error = getattr(data, "error", None)
        if error is None:
            return _one_line(event.message or "")
        if error.cls_name == "DagsterAssetCheckFailedError" and broken:
            return _one_line(" ".join(broken))
        # The step's own error is Dagster's; the cause below it is what the asset raised.
        raised = error.cause if error.cls_name == "DagsterExecutionStepExecutionError" else None
        told = (raised or error).message
        kind, colon, sentence = told.partition(": ")
        return _one_line(sentence if colon and kind.startswith("thano_assets.errors.") else told)
    return None


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 1] + "…"
