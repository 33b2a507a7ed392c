"""What LIST answers: models, tables, base models and data sets, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thano_assets.assets.runtime import Runtime
from thano_assets.catalog import Catalog, Entry, catalog_of
from thano_assets.errors import UnknownModel, UnknownTable, did_you_mean
from thano_assets.planning import Action
from thano_assets.resources.mlflow_run import CHAMPION
from thano_assets.resources.warehouse import quote
from thano_assets.sql.statements import Expect, ShowCreate

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.planning.scripts import ScriptPlanner, Step
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
            from thano_assets.resources.datasets import catalogue

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

    from thano_assets.resources.base_models import availability
    from thano_assets.resources.own_bases import of_version

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


def creation(statement: ShowCreate, catalog: Catalog, runtime: Runtime) -> pa.Table:
    """The rows of SHOW CREATE: what made a model or a table, as ``item`` and ``value``.

    Raises:
        UnknownModel, UnknownTable: nothing of that name was made here.
    """
    import pyarrow as pa

    name = statement.name
    items: dict[str, str | None] = {}
    if statement.what == "MODEL":
        entry = catalog.model(name)
        version = runtime.registry.resolve(name)
        if entry is None and version is None:
            raise UnknownModel(
                f"There is no model {name}.", hint=did_you_mean(name, runtime.registry.models(), "models")
            ).at(statement.source, statement.name_span.start, len(name))
        if version is not None:
            tags = version.tags
            items = {
                "statement": tags.get("thano.statement"),
                "version": str(version.version),
                **{name: str(value) for name, value in sorted(version.params.items())},
                "training set": tags.get("thano.training_set"),
                "data version": tags.get("thano.data_version"),
                "base": tags.get("thano.base"),
                "base source": tags.get("thano.base_source"),
                "base revision": tags.get("thano.base_revision"),
                "libraries": tags.get("thano.libraries"),
                "dagster run": tags.get("dagster.run_id"),
                "mlflow run": version.run_id,
            }
        elif entry is not None:
            items = {"statement": entry.text.strip().rstrip(";").strip()}
    else:
        entry = catalog.relation(name)
        if entry is None:
            known = [table.name for table in runtime.warehouse.tables()]
            raise UnknownTable(
                f"No statement makes a table {name}.", hint=did_you_mean(name, known, "tables")
            ).at(statement.source, statement.name_span.start, len(name))
        items = {"statement": entry.text.strip().rstrip(";").strip(), "kind": entry.kind.value}
        if runtime.warehouse.exists(name):
            with runtime.warehouse.read() as connection:
                items["data version"] = runtime.warehouse.fingerprint(connection, quote(name))
    shown = {item: value for item, value in items.items() if value}
    return pa.table({"item": list(shown), "value": list(shown.values())})


def planned_rows(steps: list[Step], planner: ScriptPlanner) -> pa.Table:
    """The rows of PLAN: what each statement would do with each asset, and why."""
    import pyarrow as pa

    rows: list[dict[str, object]] = []
    for step in steps:
        if step.drops and step.writes is not None:
            action = Action.DROP if step.runs else Action.SKIP
            rows.append(
                {
                    "statement": step.number,
                    "asset": f"{step.writes[0].replace('relation', 'table')}s/{step.writes[1]}",
                    "action": action.value,
                    "reason": step.reason,
                    "estimated_seconds": 0.0,
                }
            )
        if isinstance(step.statement, Expect):
            rows.append(
                {
                    "statement": step.number,
                    "asset": planner.asset_of(step.statement.table),
                    "action": Action.CHECK.value,
                    "reason": step.statement.text,
                    "estimated_seconds": 0.0,
                }
            )
        for one in planner.told(step):
            rows.append(
                {
                    "statement": step.number,
                    "asset": "/".join(one.node.key),
                    "action": one.action.value,
                    "reason": one.reason,
                    "rows": one.rows,
                    "estimated_seconds": None if one.seconds is None else float(f"{one.seconds:.3g}"),
                }
            )
    schema = pa.schema(
        [
            ("statement", pa.int64()),
            ("asset", pa.string()),
            ("action", pa.string()),
            ("reason", pa.string()),
            ("rows", pa.int64()),
            ("estimated_seconds", pa.float64()),
        ]
    )
    return pa.Table.from_pylist(rows, schema)
