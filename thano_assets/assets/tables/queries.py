"""Queries of statements, made ready for DuckDB and run there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thano_assets.assets.listings import listing
from thano_assets.assets.runtime import Runtime
from thano_assets.catalog.entries import nested_names
from thano_assets.errors import (
    ColumnTypeError,
    InvalidOption,
    QueryError,
    ThanoError,
    UnknownColumn,
    did_you_mean,
)
from thano_assets.resources.warehouse import Column, describe, interrupted, literal, quote
from thano_assets.sql.canonical import identifier
from thano_assets.sql.duckdb_errors import in_users_text
from thano_assets.sql.judge import syntax_tree
from thano_assets.sql.query import Query
from thano_assets.sql.statements import ListItems, Statement
from thano_assets.system import scratch_database

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


#: Rows of an asset that its page shows.
PREVIEW_ROWS = 10
#: Longest text of a preview, in characters.
PREVIEW_CHARACTERS = 200


def prepare(query: Query, connection: duckdb.DuckDBPyConnection, runtime: Runtime) -> str:
    """The SQL that DuckDB runs for ``query``: nested statements have become relations.

    PREDICT and EVALUATE are tables of the warehouse by now; LIST is registered on ``connection``.
    """
    names = nested_names(query)
    for name, nested in zip(names, query.nested, strict=True):
        if isinstance(nested.statement, ListItems):
            connection.register(name, listing(nested.statement.what, runtime))
    return query.render(names).text


@contextmanager
def located(query: Query) -> Iterator[None]:
    """Turn DuckDB's errors about ``query`` into errors with a place in the user's text."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        if "No space left" in str(error):
            raise  # that is not the query's fault; the warehouse says what to do
        raise in_users_text(error, query, query.render(nested_names(query))) from None


@dataclass(frozen=True)
class Stage:
    """The rows of a query, kept in a file of their own while a model works on them.

    ``connection`` is private to the stage, so the warehouse stays free for everybody else.
    Rows are in the table ``rows`` in the order of the query, with all of DuckDB's types.
    """

    connection: duckdb.DuckDBPyConnection
    columns: list[Column]
    path: str
    count: int


@contextmanager
def staged(query: Query, runtime: Runtime) -> Iterator[Stage]:
    """Run ``query`` once, in a short reading of the warehouse, and keep its rows beside it.

    Raises:
        QueryError: DuckDB's complaint about the query, with its place in the user's text.
    """
    import duckdb

    with scratch_database(runtime.workspace.snapshots) as path:
        with runtime.warehouse.read() as connection, located(query):
            sql = prepare(query, connection, runtime)
            refuse_twice(describe(connection, sql), query)
            connection.execute(f"ATTACH {literal(str(path))} AS stage (READ_WRITE)")
            connection.execute(f"CREATE TABLE stage.rows AS {sql}")
            connection.execute("DETACH stage")
        stage_connection = duckdb.connect(str(path))
        try:
            described = stage_connection.execute("DESCRIBE rows").fetchall()
            count = stage_connection.execute("SELECT count(*) FROM rows").fetchall()[0][0]
            yield Stage(stage_connection, [Column(row[0], row[1]) for row in described], str(path), count)
        finally:
            stage_connection.close()


def refuse_twice(columns: list[Column], query: Query) -> None:
    """Check that a query that names a column (``AS``) has no other of that name: that one would be taken.

    ``SELECT * FROM a JOIN b`` has two columns of one name without anybody having said so; what is made of
    it calls the second ``id_1``.

    Args:
        columns: as ``DESCRIBE`` of the query gives them; a table made of it has other names.
        query: the query.

    Raises:
        QueryError: it has two, as ``SELECT *, lower(x) AS x`` does.
    """
    names = [column.name.casefold() for column in columns]
    if len(set(names)) == len(names) or not _names_columns(query):
        return
    twice = next(column.name for column in columns if names.count(column.name.casefold()) > 1)
    raise _two_columns(twice).at(query.source, query.span.start)


def _two_columns(name: str) -> QueryError:
    written = identifier(name)
    return QueryError(
        f"The query has two columns {name}.",
        hint=f"SELECT * REPLACE (… AS {written}) puts one in place of the other, and "
        f"SELECT * EXCLUDE ({written}) leaves one out.",
    )


def _names_columns(query: Query) -> bool:
    """Whether the query gives one of its columns a name; so do those that have no parse tree."""
    tree = syntax_tree(query.render(nested_names(query)).text)
    if tree is None:
        return True
    node = tree["statements"][0]["node"]
    return any(item.get("alias") for item in node.get("select_list") or ())


def find_column(
    columns: list[Column], statement: Statement, option: str, trained_on: str | None = None
) -> Column:
    """The column that ``option`` of ``statement`` names.

    Args:
        columns: Of the query.
        statement: Has the query.
        option: Names the column.
        trained_on: The column that the model was trained on. It is taken where the statement does not name
            one, and the query has none by the option's default.

    Raises:
        UnknownColumn: the query has no such column; says which it has.
        QueryError: it has two of them.
    """
    name = str(statement.options.value(option))
    found = _named(columns, name)
    if not found and trained_on and option not in statement.options:
        found = _named(columns, trained_on)
    if len(found) > 1:
        raise _two_columns(found[0].name).at(statement.source, statement.span.start)
    if found:
        return found[0]
    names = [column.name for column in columns]
    given = option in statement.options
    told = f"{option}='{name}'" if given else f"{option}, which is '{name}' unless set,"
    told += " names a column that the query does not have."
    if trained_on and not given and trained_on.casefold() != name.casefold():
        told = f"{option} is not set, and the query has neither a column '{name}' nor '{trained_on}', "
        told += "on which the model was trained."
    error: ThanoError = UnknownColumn(told, hint=did_you_mean(name, names, "columns"))
    span = statement.options.place(option) if given else statement.span
    raise error.at(statement.source, span.start, span.end - span.start if given else 1)


def _named(columns: list[Column], name: str) -> list[Column]:
    return [column for column in columns if column.name.casefold() == name.casefold()]


def text_column(columns: list[Column], statement: Statement, trained_on: str | None = None) -> Column:
    """The column of ``text_col``, which must hold text; arguments as of :func:`find_column`.

    Raises:
        UnknownColumn: the query has no such column.
        ColumnTypeError: it is not text.
    """
    column = find_column(columns, statement, "text_col", trained_on)
    if not (column.type == "VARCHAR" or column.type.startswith("ENUM") or column.type == '"NULL"'):
        raise ColumnTypeError(
            f"Column {column.name} is {column.type}, not text.",
            hint=f"Cast it in the query, for example CAST({column.name} AS VARCHAR) AS {column.name}.",
        ).at(statement.source, statement.span.start)
    return column


def refuse_column(columns: list[Column], statement: Statement, names: list[str]) -> None:
    """Check that the query does not already have the columns that the statement adds.

    Raises:
        InvalidOption: it has; says how to choose another name.
    """
    present = {column.name.casefold() for column in columns}
    for name in names:
        if name.casefold() in present:
            raise InvalidOption(
                f"The query already has a column {name}.",
                hint="Leave it out of the query (SELECT * EXCLUDE …) or choose another by result_col='…'.",
            ).at(statement.source, statement.span.start)
    folded = [name.casefold() for name in names]
    if twice := next((name for name in names if folded.count(name.casefold()) > 1), None):
        raise InvalidOption(
            f"The result would have two columns {twice}.",
            hint="Give result_col and version_col names of their own, or leave columns out by proba=False.",
        ).at(statement.source, statement.span.start)


def preview(connection: duckdb.DuckDBPyConnection, table: str) -> pa.Table:
    """The first rows of ``table``, long texts cut."""
    columns = connection.execute(f"DESCRIBE {table}").fetchall()
    shown = ", ".join(
        f"CASE WHEN length({quote(name)}) > {PREVIEW_CHARACTERS} "
        f"THEN left({quote(name)}, {PREVIEW_CHARACTERS}) || '…' ELSE {quote(name)} END AS {quote(name)}"
        if type_ == "VARCHAR"
        else f"left(CAST({quote(name)} AS VARCHAR), {PREVIEW_CHARACTERS}) AS {quote(name)}"
        for name, type_, *_ in columns
    )
    return connection.sql(f"SELECT {shown} FROM {table} LIMIT {PREVIEW_ROWS}").to_arrow_table()
