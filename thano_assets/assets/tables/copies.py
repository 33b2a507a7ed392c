"""The rows of COPY statements put into a table, which gets wider types where later files need them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from thano_assets.assets.runtime import Runtime
from thano_assets.assets.tables.queries import located, prepare, refuse_twice
from thano_assets.errors import DataFileError, ThanoError
from thano_assets.resources.reading.lossless import common_type
from thano_assets.resources.reading.options import ReadOptions
from thano_assets.resources.reading.source import RawSource, ReadAgain, Relation, in_types, raw_source
from thano_assets.resources.warehouse import Column, describe, interrupted, quote
from thano_assets.results import counted
from thano_assets.sql.query import Query
from thano_assets.sql.statements import Copy, CreateTableAs, Statement

if TYPE_CHECKING:
    import duckdb

    from thano_assets.resources.workspace import Workspace

T = TypeVar("T")

_EXACT_INTEGER = 2**53  # the largest up to which a DOUBLE holds every whole number


@dataclass
class Loaded:
    """What was loaded: bytes of the files, and what a person should know of how they were read."""

    bytes: int = 0
    notes: list[str] = field(default_factory=list)


class _Widened(Exception):  # noqa: N818 - a second try, not an error that is told
    """A column needs a wider type for the rows of a later file."""

    def __init__(self, column: str, type_: str, reason: str) -> None:
        super().__init__(reason)
        self.column, self.type, self.reason = column, type_, reason


def source_of(statement: Copy, workspace: Workspace) -> RawSource:
    """What a COPY reads.

    Raises:
        PathRefused, DataFileError: see :func:`thano_assets.resources.reading.source.raw_source`.
    """
    options = ReadOptions.of(statement.options)
    return raw_source(workspace, path=statement.path, rows_json=statement.rows_json, options=options)


def load(
    opened: Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]],
    table: str,
    statements: Sequence[Statement],
    runtime: Runtime,
    finish: Callable[[duckdb.DuckDBPyConnection], T],
    *,
    temporary: bool = False,
) -> tuple[Loaded, T]:
    """Make a table from its statements, the first of which makes it and the others append.

    Args:
        opened: opens a connection that writes the table. It is called again where a first reading shows
            that the files must be read otherwise, since DuckDB's error ends the transaction.
        table: its name.
        statements: COPY, or CREATE TABLE … AS of a query and COPY.
        runtime: the workspace's resources.
        finish: is called with the connection once the table is there.
        temporary: make a temporary table.

    Returns:
        What was loaded, and what ``finish`` gave.

    Raises:
        DataFileError: a file cannot be read, or its columns are not those of the table.
        QueryError: DuckDB's complaint about the query.
    """
    widened: dict[str, str] = {}
    ways: dict[int, RawSource] = {}
    while True:
        loaded = Loaded()
        try:
            with opened() as connection:
                for number, statement in enumerate(statements):
                    if isinstance(statement, Copy):
                        source = ways.get(number) or source_of(statement, runtime.workspace)
                        try:
                            _copy(connection, table, source, widened, loaded, number > 0, temporary)
                        except ReadAgain as again:
                            ways[number] = again.source
                            raise
                        except ThanoError as error:
                            raise error.at(statement.source, statement.source_span.start)  # noqa: B904 - placed
                    elif isinstance(statement, CreateTableAs) and isinstance(statement.body, Query):
                        with located(statement.body):
                            sql = prepare(statement.body, connection, runtime)
                            columns = describe(connection, sql)
                            refuse_twice(columns, statement.body)
                            sql = in_types(sql, columns, widened)
                            connection.execute(
                                f"CREATE OR REPLACE {_kind(temporary)} {quote(table)} AS {sql}"
                            )
                return loaded, finish(connection)
        except ReadAgain as again:
            runtime.progress.message(again.reason)
        except _Widened as wider:
            widened[wider.column.casefold()] = wider.type
            runtime.progress.message(wider.reason)


def _kind(temporary: bool) -> str:
    return "TEMP TABLE" if temporary else "TABLE"


def _copy(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    source: RawSource,
    widened: dict[str, str],
    loaded: Loaded,
    append: bool,
    temporary: bool,
) -> None:
    import duckdb

    try:
        # What is appended is fitted below; only text must be known before, for the sake of its spelling.
        known = {name: type_ for name, type_ in widened.items() if not append or type_ == "VARCHAR"}
        with source.relation(connection, known) as relation:
            if append:
                target = f"temp.{quote(table)}" if temporary else quote(table)
                _fit(connection, target, table, relation, loaded)
                connection.execute(f"INSERT INTO {target} BY NAME {relation.sql}")
            else:
                connection.execute(f"CREATE OR REPLACE {_kind(temporary)} {quote(table)} AS {relation.sql}")
            loaded.notes += [note for note in relation.notes if note not in loaded.notes]
    except duckdb.Error as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        raise
    loaded.bytes += source.bytes


def _fit(
    connection: duckdb.DuckDBPyConnection, target: str, table: str, relation: Relation, loaded: Loaded
) -> None:
    """Check that rows can be appended without a value being changed.

    Raises:
        DataFileError: the table has no such column, or one of nested values that differ.
        _Widened: a column needs another type.
    """
    present = {column.name.casefold(): column for column in describe(connection, f"SELECT * FROM {target}")}
    for column in relation.columns:
        ours = present.pop(column.name.casefold(), None)
        if ours is None:
            raise DataFileError(
                f"The rows do not fit the table {table}: it has no column {column.name}.",
                hint="Appended rows need the same columns; OPTIONS (if_exists='replace') starts over.",
            )
        if ours.type == column.type or column.type == '"NULL"':
            continue
        exact = all(
            _exact(connection, rows, name)
            for rows, name in ((f"SELECT * FROM {target}", ours), (relation.sql, column))
        )
        wider = common_type(ours.type, column.type, exact=exact)
        if wider is None:
            raise DataFileError(
                f"The rows do not fit the table {table}: column {column.name} is {column.type}, "
                f"and there {ours.type}.",
                hint="Appended rows need the same columns; OPTIONS (if_exists='replace') starts over.",
            )
        if wider == ours.type and wider != "VARCHAR":
            continue
        reason = f"Column {ours.name} is {ours.type} and then {column.type}: as {wider} it holds both."
        raise _Widened(ours.name, wider, reason)
    if present:
        rows = connection.execute(f"SELECT count(*) FROM ({relation.sql})").fetchall()[0][0]
        lacking = ", ".join(column.name for column in present.values())
        loaded.notes.append(f"The appended file has no column {lacking}: NULL in its {counted(rows, 'row')}.")


def _exact(connection: duckdb.DuckDBPyConnection, rows: str, column: Column) -> bool:
    """Whether a column has no whole number that a DOUBLE would change."""
    if not column.type.endswith("INT") and column.type != "INTEGER":
        return True
    largest = connection.execute(
        f"SELECT max(abs(CAST({quote(column.name)} AS HUGEINT))) FROM ({rows})"
    ).fetchall()[0][0]
    return largest is None or int(largest) <= _EXACT_INTEGER
