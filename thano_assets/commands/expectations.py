"""EXPECT and DROP EXPECT: what must hold for the rows of a table, stated, asked and given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thano_assets.assets.runtime import CheckOutcome, Runtime
from thano_assets.assets.tables import checks
from thano_assets.assets.tables.checks import checks_to_drop, expectation
from thano_assets.catalog import Catalog, Entry, EntryKind, entry_of
from thano_assets.errors import UnknownExpectation, UnknownTable, did_you_mean
from thano_assets.graph import NodeKind
from thano_assets.graph.build import Key
from thano_assets.results import Result, counted
from thano_assets.sql.statements import DropExpect, Expect

if TYPE_CHECKING:
    from thano_assets.orchestration.runner import Runner


def expect(statement: Expect, runtime: Runtime, runner: Runner, catalog: Catalog) -> Result:
    """Keep the expectation, and hold the table as it is now against it.

    Answers one row: table, condition, holds, rows, failing_rows. A table that has yet to be made is asked
    then; ``holds`` is NULL until it is. That rows break the condition is a warning here, and an error where
    something is to be made from the table.

    Raises:
        UnknownTable: nobody makes the table, and it is not there.
        UnknownColumn, QueryError, ColumnTypeError: DuckDB cannot ask the condition of the table.
    """
    import pyarrow as pa

    there = _check_table(statement, runtime, catalog)
    entry = entry_of(statement)
    assert entry is not None
    outcome = None
    if there:
        checks.bind(statement, runtime)
        outcome = checks.evaluate(entry, runtime)
    catalog.put(entry)
    condition = " ".join(statement.condition.split())
    result = Result(
        statement.kind,
        statement.text,
        f"the table {statement.table} is asked when it is made" if outcome is None else outcome.description,
        row_count=1,
    )
    if outcome is not None:
        _record(entry, outcome, runner, _table_key(statement.table, catalog))
        if not outcome.passed:
            result.warnings.append(
                f"{outcome.description} Nothing is made from {statement.table} while this is so."
            )
    facts = outcome.facts if outcome is not None else {}
    result.rows = pa.table(
        {
            "table": pa.array([statement.table], pa.string()),
            "condition": pa.array([condition], pa.string()),
            "holds": pa.array([None if outcome is None else outcome.passed], pa.bool_()),
            "rows": pa.array([facts.get("rows")], pa.int64()),
            "failing_rows": pa.array([facts.get("failing rows")], pa.int64()),
        }
    )
    return result


def drop(statement: DropExpect, runtime: Runtime, runner: Runner, catalog: Catalog) -> Result:
    """Give up the expectation with this condition, or all of the table's.

    Raises:
        UnknownTable: there is no such table.
        UnknownExpectation: nothing like it is expected of the table; says what is.
    """
    kept = catalog.expectations(statement.table)
    if not kept:
        _check_table(statement, runtime, catalog)
    wanted = checks_to_drop(statement, kept)
    if not wanted:
        span = statement.condition_span
        listed = "; ".join(_condition(entry) for entry in kept)
        place = span or statement.table_span
        raise UnknownExpectation(
            f"This is not expected of {statement.table}."
            if span
            else f"Nothing is expected of {statement.table}.",
            hint=f"What is expected: {listed}."
            if kept
            else "EXPECT condition ON table states what must hold.",
        ).at(statement.source, place.start, len(place))
    for entry in wanted:
        catalog.remove(EntryKind.CHECK, entry.name)
    return Result(
        statement.kind,
        statement.text,
        f"{counted(len(wanted), 'expectation')} of {statement.table} dropped",
    )


def forget(table: str, catalog: Catalog) -> int:
    """Remove the expectations of a table that is dropped; tells how many there were."""
    entries = catalog.expectations(table)
    for entry in entries:
        catalog.remove(EntryKind.CHECK, entry.name)
    return len(entries)


def _condition(entry: Entry) -> str:
    return " ".join(expectation(entry).condition.split())


def _check_table(statement: Expect | DropExpect, runtime: Runtime, catalog: Catalog) -> bool:
    """Whether the table is there.

    Raises:
        UnknownTable: no statement makes it either.
    """
    there = runtime.warehouse.exists(statement.table)
    if there or catalog.relation(statement.table) is not None:
        return there
    kinds = [kind for kind in EntryKind if kind.is_relation]
    known = {*catalog.names(*kinds), *(table.name for table in runtime.warehouse.tables())}
    raise UnknownTable(
        f"There is no table {statement.table}.", hint=did_you_mean(statement.table, known, "tables")
    ).at(statement.source, statement.table_span.start, len(statement.table_span))


def _table_key(table: str, catalog: Catalog) -> Key:
    entry = catalog.relation(table)
    return (NodeKind.TABLE.value, table) if entry is None else (entry.kind.value, entry.name)


def _record(entry: Entry, outcome: CheckOutcome, runner: Runner, key: Key) -> None:
    """Show what was found on the asset's page, as the check's latest evaluation."""
    import dagster as dg

    from thano_assets.orchestration import metadata

    runner.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=metadata.asset_key(key),
            check_name=outcome.name,
            passed=outcome.passed,
            description=outcome.description,
            metadata=metadata.of_check(outcome),
            blocking=True,
        )
    )
