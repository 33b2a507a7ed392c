"""From nodes of the graph to Dagster assets."""

# Without postponed annotations: Dagster looks at the type of ``context`` as an object.

import base64
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from thano_assets import progress
from thano_assets.assets import evaluations, models, predictions, raw, tables, training_sets
from thano_assets.assets.runtime import Outcome, Runtime, keep_outcome
from thano_assets.errors import ThanoError
from thano_assets.graph import Graph, Node, NodeKind
from thano_assets.graph.build import Key
from thano_assets.progress import Progress, Task
from thano_assets.sql.statements import Copy

_BODIES: Mapping[NodeKind, Callable[[Node, Runtime], Outcome]] = {
    NodeKind.RAW: raw.materialize,
    NodeKind.TABLE: tables.materialize,
    NodeKind.TRAINING_SET: training_sets.materialize,
    NodeKind.MODEL: models.materialize,
    NodeKind.PREDICTION: predictions.materialize,
    NodeKind.EVALUATION: evaluations.materialize,
}

# Names that the Dagster UI has icons for.
_ICONS: Mapping[NodeKind, frozenset[str]] = {
    NodeKind.RAW: frozenset({"file"}),
    NodeKind.TABLE: frozenset({"duckdb", "table"}),
    NodeKind.TRAINING_SET: frozenset({"parquet", "dataset"}),
    NodeKind.MODEL: frozenset({"pytorch", "huggingface", "mlflow"}),
    NodeKind.PREDICTION: frozenset({"duckdb", "huggingface"}),
    NodeKind.EVALUATION: frozenset({"duckdb", "report"}),
}

_MEANING: Mapping[NodeKind, str] = {
    NodeKind.RAW: "The file that COPY reads into the table {name}.",
    NodeKind.TABLE: "The table {name} of the warehouse.",
    NodeKind.TRAINING_SET: "The checked rows that the model {name} is trained on, kept as Parquet.",
    NodeKind.MODEL: "The text classifier {name}; each materialization registers a version in MLflow.",
    NodeKind.PREDICTION: "The table {name}: the query's rows with the model's predictions.",
    NodeKind.EVALUATION: "The table {name}: how well the model's answers agree with the true labels.",
}

#: Longest text that a piece of metadata shows.
_LONGEST_TEXT = 2000
#: Seconds between two lines of progress in the log of a run.
_LOG_EVERY = 10.0


def asset_key(key: Key) -> dg.AssetKey:
    """The Dagster key of a node's key."""
    return dg.AssetKey(list(key))


def op_name(key: Key) -> str:
    """A legal Dagster name for the step that makes ``key``; names of any script are allowed in keys."""
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in "__".join(key))
    if plain == "__".join(key):
        return plain
    return f"{plain}_{hashlib.sha256('/'.join(key).encode()).hexdigest()[:8]}"


def build_assets(nodes: Iterable[Node]) -> list[dg.AssetsDefinition]:
    """One Dagster asset for each node."""
    return [_build(node) for node in nodes]


def build_definitions(graph: Graph, resources: Mapping[str, Any]) -> dg.Definitions:
    """The whole graph as a code location; statements that no longer parse are shown with their error."""
    broken = [
        dg.AssetSpec(
            ["broken", "".join(c if c.isalnum() else "_" for c in entry.name)],
            group_name="broken",
            description=f"The file of {entry.kind.value}/{entry.name} is not a legal statement:\n\n{error}",
        )
        for entry, error in graph.broken.items()
    ]
    return dg.Definitions(
        assets=[*build_assets(graph.nodes.values()), *broken],
        resources=resources,
        executor=dg.in_process_executor,
    )


def _build(node: Node) -> dg.AssetsDefinition:
    name = op_name(node.key)

    @dg.multi_asset(
        name=name,
        outs={
            name: dg.AssetOut(
                key=asset_key(node.key),
                dagster_type=dg.Nothing,
                group_name=node.kind.value,
                kinds=set(_icons(node)),
                code_version=node.code_version,
                description=_description(node),
            )
        },
        ins={op_name(key): dg.AssetIn(key=asset_key(key), dagster_type=dg.Nothing) for key in node.reads},
        required_resource_keys={"workspace", "warehouse", "registry"},
    )
    def asset(context: AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        outcome = _materialize(node, context)
        keep_outcome(node, outcome)
        yield dg.MaterializeResult(
            asset_key=asset_key(node.key),
            metadata=_metadata(outcome),
            data_version=dg.DataVersion(outcome.data_version),
        )

    return asset


def _materialize(node: Node, context: AssetExecutionContext) -> Outcome:
    resources = context.resources
    asked = progress.current()
    # A run of the Dagster UI, a schedule or a sensor has nobody who listens: its log does then.
    listener = _LogProgress(context.log) if asked is progress.SILENT else asked
    runtime = Runtime(
        workspace=resources.workspace.workspace,
        warehouse=resources.warehouse.warehouse,
        registry=resources.registry.registry,
        progress=listener,
        run_id=context.run.run_id,
    )
    with progress.reporting_to(listener) if asked is progress.SILENT else nullcontext():
        try:
            return _BODIES[node.kind](node, runtime)
        except ThanoError as error:
            context.log.error(error.pretty())
            raise


def _icons(node: Node) -> frozenset[str]:
    if node.kind is not NodeKind.RAW:
        return _ICONS[node.kind]
    path = next((s.path for s in node.entry.statements if isinstance(s, Copy) and s.path), "")
    ending = path.lower().removesuffix(".gz").removesuffix(".zst").rsplit(".", 1)[-1]
    known = {
        "csv": "csv",
        "tsv": "csv",
        "json": "json",
        "jsonl": "json",
        "ndjson": "json",
        "parquet": "parquet",
    }
    return _ICONS[node.kind] | (
        {known[ending]} if ending in known else {"excel"} if ending == "xlsx" else set()
    )


def _description(node: Node) -> str:
    text = node.entry.text.strip().rstrip(";").rstrip()
    return f"{_MEANING[node.kind].format(name=node.name)}\n\n```sql\n{text}\n```"


def _metadata(outcome: Outcome) -> dict[str, Any]:
    """An outcome as what the asset's page shows."""
    metadata: dict[str, Any] = {"summary": outcome.summary}
    if outcome.rows is not None:
        metadata["dagster/row_count"] = outcome.rows
    if outcome.columns:
        metadata["dagster/column_schema"] = dg.TableSchema(
            columns=[dg.TableColumn(column.name, column.type) for column in outcome.columns]
        )
    for label, value in outcome.facts.items():
        if isinstance(value, str):
            metadata[label] = value[:_LONGEST_TEXT]
        elif isinstance(value, (bool, int, float)):
            metadata[label] = value
        else:
            metadata[label] = str(value)[:_LONGEST_TEXT]
    for label, address in outcome.links.items():
        metadata[label] = dg.MetadataValue.url(address)
    for label, png in outcome.pictures.items():
        metadata[label] = dg.MetadataValue.md(
            f"![{label}](data:image/png;base64,{base64.b64encode(png).decode()})"
        )
    if outcome.preview is not None and outcome.preview.num_columns:
        metadata["preview"] = dg.MetadataValue.md(_markdown_table(outcome.preview))
    if outcome.warnings:
        metadata["warnings"] = dg.MetadataValue.md("\n".join(f"- {text}" for text in outcome.warnings))
    return metadata


def _markdown_table(preview: Any) -> str:
    def cell(value: Any) -> str:
        return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")

    names = preview.column_names
    lines = ["| " + " | ".join(map(cell, names)) + " |", "|" + " --- |" * len(names)]
    for row in preview.to_pylist():
        lines.append("| " + " | ".join(cell(row[name]) for name in names) + " |")
    return "\n".join(lines)


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


class _LogProgress(Progress):
    """Progress as lines in a run's log, for runs that nobody watches."""

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
