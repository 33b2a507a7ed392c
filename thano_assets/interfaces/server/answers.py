"""Results as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thano_assets.interfaces.formats import objects

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace
    from thano_assets.results import Result

#: Rows that an answer shows of what is kept as a table.
SHOWN = 100


def records(result: Result, count: int) -> list[dict[str, Any]]:
    """The first rows of a result as objects of JSON, by the names of its columns."""
    table = result.head(count) if count else None
    return [] if table is None else list(objects(table))


def result_json(result: Result, workspace: Workspace, count: int = SHOWN) -> dict[str, Any]:
    """A result for a program: what was done, with its first rows."""
    url = workspace.settings.dagster.url.rstrip("/")
    return {
        "kind": result.kind,
        "summary": result.summary,
        "warnings": list(result.warnings),
        "seconds": round(result.seconds, 3),
        "assets": list(result.assets),
        "table": result.kept_as,
        "row_count": result.row_count,
        "records": records(result, count),
        "dagster_run": result.run_id and {"id": result.run_id, "url": f"{url}/runs/{result.run_id}"},
        "mlflow_run_id": result.mlflow_run_id,
    }
