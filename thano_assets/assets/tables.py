"""Tables of the warehouse: what COPY and CREATE TABLE … AS make."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from thano_assets.assets.relations import located, prepare, preview
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.errors import DataFileError, ThanoError
from thano_assets.graph import Node
from thano_assets.resources.files import TypesGuessedWrong, raw_source
from thano_assets.resources.warehouse import Column, interrupted, literal, quote
from thano_assets.results import counted
from thano_assets.sql.statements import Copy, CreateTableAs, Query

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
    try:
        outcome, size = _make(node, runtime, thorough=False)
    except TypesGuessedWrong:
        runtime.progress.message(
            "A later row does not fit the types of the first ones: reading all rows first."
        )
        outcome, size = _make(node, runtime, thorough=True)
    seconds = time.perf_counter() - started
    outcome.facts |= {"seconds": round(seconds, 3)}
    if size:
        outcome.facts["bytes read"] = size
    if isinstance(node.entry.statements[-1], Copy):
        outcome.result = copy_result(node.name, outcome, size, seconds)
    return outcome


def _make(node: Node, runtime: Runtime, *, thorough: bool) -> tuple[Outcome, int]:
    """Run the statements of the table in one transaction; returns what was made and the bytes read."""
    size = 0
    with runtime.warehouse.write() as connection:
        for number, statement in enumerate(node.entry.statements):
            if isinstance(statement, Copy):
                size += _load(connection, node.name, statement, runtime, append=number > 0, thorough=thorough)
            elif isinstance(statement, CreateTableAs) and isinstance(statement.body, Query):
                with located(statement.body):
                    sql = prepare(statement.body, connection, runtime)
                    connection.execute(f"CREATE OR REPLACE TABLE {quote(node.name)} AS {sql}")
        return describe_table(connection, node.name, runtime), size


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


def _load(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    statement: Copy,
    runtime: Runtime,
    *,
    append: bool,
    thorough: bool,
) -> int:
    """Load the file or the inline rows of one COPY; returns the bytes read."""
    import duckdb

    source = raw_source(runtime.workspace, path=statement.path, rows_json=statement.rows_json)
    if thorough:
        source = source.thorough()
    try:
        relation = source.relation(connection)
        if append:
            connection.execute(f"INSERT INTO {quote(name)} BY NAME {relation}")
        else:
            connection.execute(f"CREATE OR REPLACE TABLE {quote(name)} AS {relation}")
    except ThanoError as error:
        raise error.at(statement.source, statement.source_span.start)  # noqa: B904 - the same error, placed
    except duckdb.Error as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        if append and isinstance(error, (duckdb.BinderException, duckdb.ConversionException)):
            raise DataFileError(
                f"The rows do not fit the table {name}: {str(error).splitlines()[0]}",
                hint="Appended rows need the same columns; OPTIONS (if_exists='replace') starts anew.",
            ).at(statement.source, statement.source_span.start) from None
        raise source.explain(error).at(statement.source, statement.source_span.start) from None
    return source.bytes


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
