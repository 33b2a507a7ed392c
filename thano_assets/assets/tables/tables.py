"""Tables of the warehouse: what COPY and CREATE TABLE … AS make."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thano_assets.assets.kind import AssetKind, described, shown_as
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.column_lineage import ColumnLineage, of_rows
from thano_assets.assets.tables.copies import load
from thano_assets.assets.tables.queries import preview
from thano_assets.graph import Node, NodeKind
from thano_assets.resources.warehouse import Column, literal, quote
from thano_assets.results import counted
from thano_assets.sql.statements import Copy

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Make the table from its statements, whole, and put it in place of the old one in one transaction.

    Raises:
        DataFileError: a file cannot be read as what it claims to be.
        QueryError: DuckDB's complaint about the query.
    """
    started = time.perf_counter()
    loaded, outcome = load(
        runtime.warehouse.write,
        node.name,
        node.entry.statements,
        runtime,
        lambda connection: describe_table(connection, node.name, runtime),
    )
    seconds = time.perf_counter() - started
    outcome.facts |= {"seconds": round(seconds, 3)}
    for note in loaded.notes:
        outcome.warn(runtime.progress, note)
    if loaded.bytes:
        outcome.facts["bytes read"] = loaded.bytes
    if isinstance(node.entry.statements[-1], Copy):
        outcome.result = copy_result(node.name, outcome, loaded.bytes, seconds)
    return outcome


def copy_result(name: str, outcome: Outcome, size: int, seconds: float) -> pa.Table:
    """The row that COPY answers with: table, rows, columns, bytes, seconds."""
    import pyarrow as pa

    return pa.table(
        {
            "table": [name],
            "rows": [outcome.rows],
            "columns": [len(outcome.columns or [])],
            "bytes": [size],
            "seconds": [round(seconds, 3)],
        }
    )


def describe_table(connection: duckdb.DuckDBPyConnection, name: str, runtime: Runtime) -> Outcome:
    """Fingerprint, rows, columns and first rows of a table, inside the transaction that made it."""
    table = quote(name)
    columns = [Column(row[0], row[1]) for row in connection.execute(f"DESCRIBE {table}").fetchall()]
    rows = connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    return Outcome(
        data_version=runtime.warehouse.fingerprint(connection, table),
        summary=f"table {name}: {counted(rows, 'row')}, {counted(len(columns), 'column')}",
        rows=rows,
        columns=columns,
        preview=preview(connection, table),
    )


def replace_from_stage(node: Node, runtime: Runtime, stage_path: str, select: str) -> Outcome:
    """Put ``select`` over the attached stage in place of the node's table, in one short transaction."""
    with runtime.warehouse.write() as connection:
        connection.execute(f"ATTACH {literal(stage_path)} AS stage (READ_ONLY)")
        connection.execute(f"CREATE OR REPLACE TABLE {quote(node.name)} AS {select}")
        outcome = describe_table(connection, node.name, runtime)
    return outcome


def _lineage(node: Node, columns: Sequence[str], runtime: Runtime) -> ColumnLineage:
    query = node.entry.statement.rows_from
    return of_rows(query, columns, runtime) if query is not None else {}


KIND = AssetKind(
    NodeKind.TABLE,
    materialize,
    description=described("The table {name} of the warehouse."),
    icons=shown_as("duckdb", "table"),
    lineage=_lineage,
)
