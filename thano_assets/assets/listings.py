"""What LIST answers, by itself and within a query: models, tables, base models and data sets, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thano_assets.assets.runtime import Runtime
from thano_assets.catalog import Entry, catalog_of
from thano_assets.resources.base_models import availability
from thano_assets.resources.datasets import catalogue
from thano_assets.resources.own_bases import of_version
from thano_assets.sql.grammar import CHAMPION

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.resources.registry import ModelVersion


def listing(what: str, runtime: Runtime) -> pa.Table:
    """The rows of ``LIST what``; ``what`` is MODEL, TABLE, THANOSQL MODEL or THANOSQL DATASET."""
    match what:
        case "MODEL":
            return _models(runtime)
        case "TABLE":
            return _tables(runtime)
        case "THANOSQL MODEL":
            return _base_models(runtime)
        case _:
            return catalogue()


def _models(runtime: Runtime) -> pa.Table:
    import pyarrow as pa

    versions = [
        version for name in runtime.registry.models() if (version := _shown(runtime, name)) is not None
    ]
    numbers = [v.metrics.get("r2") for v in versions]  # of models that predict numbers
    return pa.table(
        {
            "name": pa.array([v.name for v in versions], pa.string()),
            "class_name": pa.array([v.tags.get("thano.class_name") for v in versions], pa.string()),
            "last_updated_utc": pa.array([v.created for v in versions], pa.timestamp("ms")),
            "version": pa.array([int(v.version) for v in versions], pa.int64()),
            "aliases": pa.array([list(v.aliases) for v in versions], pa.list_(pa.string())),
            "accuracy": pa.array([v.metrics.get("accuracy") for v in versions], pa.float64()),
            "kind": pa.array([v.kind for v in versions], pa.string()),
            **({"r2": pa.array(numbers, pa.float64())} if any(one is not None for one in numbers) else {}),
        }
    )


def _base_models(runtime: Runtime) -> pa.Table:
    """Those of the catalogue, then those that were built here."""
    import pyarrow as pa

    rows = availability(runtime.workspace)
    for name in runtime.registry.models():
        version = _shown(runtime, name)
        if version is None or not version.is_base or not version.path.is_dir():
            continue
        base = of_version(version)
        size = sum(file.stat().st_size for file in version.path.iterdir() if file.is_file())
        rows.append(
            {
                "name": base.name,
                "class_name": f"{base.architecture.title()}Model",
                "description": base.describe(),
                "source": base.source,
                "revision": base.revision,
                "hub_id": None,
                "size_mb": round(size / 1e6),
                "available": True,
                "reason": None,
            }
        )
    return pa.Table.from_pylist(rows)


def _shown(runtime: Runtime, name: str) -> ModelVersion | None:
    """The version that answers for a model, else its newest; its files may be gone."""
    versions = runtime.registry.versions(name)
    answers = [version for version in versions if CHAMPION in version.aliases]
    return next(iter(answers), versions[-1] if versions else None)


def _tables(runtime: Runtime) -> pa.Table:
    import pyarrow as pa

    catalog = catalog_of(runtime.workspace)
    tables = runtime.warehouse.tables()
    entries = [catalog.relation(table.name) for table in tables]
    return pa.table(
        {
            "table_name": pa.array([table.name for table in tables], pa.string()),
            "rows": pa.array([table.rows for table in tables], pa.int64()),
            "columns": pa.array([len(table.columns) for table in tables], pa.int64()),
            "made_by": pa.array([_made_by(entry) for entry in entries], pa.string()),
        }
    )


def _made_by(entry: Entry | None) -> str | None:
    if entry is None:
        return None
    return " ".join(entry.text.split())[:200].rstrip("; ")
