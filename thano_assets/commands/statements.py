"""The rows of SHOW CREATE, what made a model or a table, and of PLAN, what statements would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thano_assets.assets.runtime import Runtime
from thano_assets.catalog import Catalog
from thano_assets.errors import UnknownModel, UnknownTable, did_you_mean
from thano_assets.planning import Action
from thano_assets.resources.warehouse import quote
from thano_assets.sql.statements import Expect, ShowCreate

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.planning.scripts import ScriptPlanner, Step


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
