"""An outcome as what an asset's page shows, and as what later plans read back."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import dagster as dg

from thano_assets.assets.models.replay import Report
from thano_assets.assets.runtime import CheckOutcome, Outcome
from thano_assets.catalog import Entry
from thano_assets.graph.build import Key
from thano_assets.orchestration.records import DETAILS, STATEMENT

if TYPE_CHECKING:
    import pyarrow as pa

#: Longest text that a piece of metadata shows.
_LONGEST_TEXT = 2000


def asset_key(key: Key) -> dg.AssetKey:
    """The Dagster key of a node's key."""
    return dg.AssetKey(list(key))


def of_outcome(entry: Entry, outcome: Outcome) -> dict[str, Any]:
    """The metadata of a materialization, in the order of the page: what plans read back stands last."""
    metadata: dict[str, Any] = {"summary": outcome.summary} | _facts(outcome.facts)
    if outcome.rows is not None:
        metadata["dagster/row_count"] = outcome.rows
    if outcome.columns:
        metadata["dagster/column_schema"] = dg.TableSchema(
            columns=[dg.TableColumn(column.name, column.type) for column in outcome.columns]
        )
    if outcome.column_lineage:
        metadata["dagster/column_lineage"] = dg.TableColumnLineage(
            {
                column: [dg.TableColumnDep(asset_key(key), name) for key, name in sources]
                for column, sources in outcome.column_lineage.items()
            }
        )
    for label, address in outcome.links.items():
        metadata[label] = dg.MetadataValue.url(address)
    for label, markdown in outcome.texts.items():
        metadata[label] = dg.MetadataValue.md(markdown)
    for label, png in outcome.pictures.items():
        metadata[label] = dg.MetadataValue.md(
            f"![{label}](data:image/png;base64,{base64.b64encode(png).decode()})"
        )
    if outcome.preview is not None and outcome.preview.num_columns:
        metadata["preview"] = dg.MetadataValue.md(markdown_table(outcome.preview))
    if outcome.warnings:
        metadata["warnings"] = dg.MetadataValue.md("\n".join(f"- {text}" for text in outcome.warnings))
    metadata[DETAILS] = dg.MetadataValue.json(outcome.details | {STATEMENT: entry.text})
    return metadata


def of_check(check: CheckOutcome) -> dict[str, Any]:
    """The metadata of a check: its figures and the rows that show what is wrong."""
    metadata = _facts(check.facts)
    if check.preview is not None and check.preview.num_rows:
        metadata["offending rows"] = dg.MetadataValue.md(markdown_table(check.preview))
    return metadata


def _facts(facts: dict[str, Any]) -> dict[str, Any]:
    return {label: _shown(value) for label, value in facts.items()}


def _shown(value: Any) -> Any:
    if isinstance(value, float) and not isinstance(value, bool):
        return round(value, 4) if abs(value) >= 0.01 else float(f"{value:.3g}")
    return value if isinstance(value, (bool, int)) else str(value)[:_LONGEST_TEXT]


def markdown_table(rows: pa.Table) -> str:
    """Rows as a table in Markdown."""

    def cell(value: Any) -> str:
        return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")

    names = rows.column_names
    lines = ["| " + " | ".join(map(cell, names)) + " |", "|" + " --- |" * len(names)]
    for row in rows.to_pylist():
        lines.append("| " + " | ".join(cell(row[name]) for name in names) + " |")
    return "\n".join(lines)


def observe_replay(instance: dg.DagsterInstance, report: Report, link: str) -> None:
    """Show the report on the model's page in Dagster."""
    rows = report.table().to_pylist()
    lines = ["| what | then | now | equal |", "| --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(map(str, row.values())) + " |" for row in rows]
    metadata: dict[str, Any] = {
        "summary": report.sentence,
        "equal": report.equal,
        "model version": report.version.version,
        "report": dg.MetadataValue.md("\n".join(lines)),
        "MLflow run": dg.MetadataValue.url(link),
    }
    instance.report_runless_asset_event(
        dg.AssetObservation(asset_key=dg.AssetKey(["models", report.version.name]), metadata=metadata)
    )
