"""Expectations of tables: what their EXPECT statements say, held against the rows.

A row breaks an expectation where the condition is not true: a NULL counts as a row that breaks it, unlike in
SQL's CHECK, because an unknown value is not one to build a model on. A condition with an aggregate, such as
``count(*) > 100``, is about the table as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from thano_assets.assets.runtime import CheckOutcome, Runtime
from thano_assets.assets.tables.queries import PREVIEW_ROWS, preview
from thano_assets.catalog import Entry, catalog_of
from thano_assets.errors import ColumnTypeError, ExpectationFailed, ThanoError
from thano_assets.graph import Node
from thano_assets.graph.build import Key
from thano_assets.resources.warehouse import interrupted, quote
from thano_assets.results import counted
from thano_assets.sql.duckdb_errors import in_users_text
from thano_assets.sql.query import Query, Rendered
from thano_assets.sql.statements import DropExpect, Expect

if TYPE_CHECKING:
    import duckdb

_COMPARISONS = {">=": "ge", "<=": "le", "<>": "ne", "!=": "ne", "==": "eq", "=": "eq", ">": "gt", "<": "lt"}
_COMPARISON = re.compile("|".join(_COMPARISONS))
_LONGEST_STEM = 60
_HOLDS = "thano_holds"


def expectation(entry: Entry) -> Expect:
    """The EXPECT statement of a check's entry."""
    statement = entry.statement
    assert isinstance(statement, Expect)
    return statement


def check_name(entry: Entry) -> str:
    """A readable name for the check of ``entry``, its own among the checks of the table.

    ``rating >= 1`` on ``reviews`` gives ``rating_ge_1_`` and six digits of the condition's digest.
    """
    condition = _COMPARISON.sub(lambda match: f" {_COMPARISONS[match[0]]} ", expectation(entry).condition)
    stem = re.sub(r"\W+", "_", condition).strip("_").lower()[:_LONGEST_STEM].rstrip("_")
    return f"{stem}_{entry.name.rpartition('_')[2]}"


def described(entry: Entry) -> str:
    """The check as its page shows it."""
    return f"Every row fulfils the condition.\n\n```sql\n{expectation(entry).text.strip()}\n```"


def bind(statement: Expect, runtime: Runtime) -> None:
    """Check with DuckDB that the condition can be asked of the table, which is there.

    Raises:
        UnknownColumn, UnknownTable, QueryError: what the condition names is not there; placed in the text.
        ColumnTypeError: it is neither true nor false but a value of another type.
    """
    with runtime.warehouse.read() as connection, _located(statement):
        kind = str(connection.sql(_rendered(statement).text).types[0])
    if kind != "BOOLEAN":
        span = statement.condition_span
        raise ColumnTypeError(
            f"The condition is {kind}, neither true nor false.",
            hint="Compare it with something, as in rating BETWEEN 1 AND 5.",
        ).at(statement.source, span.start, len(span))


def evaluate(entry: Entry, runtime: Runtime) -> CheckOutcome:
    """Hold the table as it is now against the expectation; a condition that cannot be asked does not hold.

    The facts are ``rows`` and ``failing rows``; the preview has the first rows that break the condition.
    """
    statement = expectation(entry)
    name = check_name(entry)
    try:
        bind(statement, runtime)
        with runtime.warehouse.read() as connection, _located(statement):
            return _counted(statement, name, connection)
    except ThanoError as error:
        if error.text is None:  # not about the condition: the warehouse itself cannot be used
            raise
        return CheckOutcome(name, False, f"EXPECT {_shown(statement)} cannot be asked: {error.message}")


def _counted(statement: Expect, name: str, connection: duckdb.DuckDBPyConnection) -> CheckOutcome:
    table = quote(statement.table)
    asked, failing = connection.execute(
        f"SELECT count(*), count(*) FILTER ({_HOLDS} IS NOT TRUE) "
        f"FROM (SELECT {_HOLDS} FROM ({_rendered(statement).text}))"
    ).fetchall()[0]
    rows = connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    if failing == 0:
        return CheckOutcome(
            name,
            True,
            f"EXPECT {_shown(statement)} holds for {counted(rows, 'row')} of {statement.table}.",
            {"rows": rows, "failing rows": 0},
        )
    if _is_of_the_whole(statement, connection):
        return CheckOutcome(
            name, False, f"EXPECT {_shown(statement)} does not hold for {statement.table}.", {"rows": rows}
        )
    verb = "breaks" if failing == 1 else "break"
    return CheckOutcome(
        name,
        False,
        f"{failing:,} of {counted(asked, 'row')} of {statement.table} {verb} EXPECT {_shown(statement)}.",
        {"rows": asked, "failing rows": failing},
        preview(connection, f"({_offending(statement)} LIMIT {PREVIEW_ROWS})"),
    )


def _is_of_the_whole(statement: Expect, connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the condition is one of all rows together: it cannot stand beside a row's columns."""
    import duckdb

    try:
        connection.execute(f"DESCRIBE {_offending(statement)}")
    except duckdb.BinderException:
        return True
    return False


def _offending(statement: Expect) -> str:
    table = quote(statement.table)
    return (
        f"SELECT * EXCLUDE ({_HOLDS}) FROM (SELECT *, ({statement.condition}\n) AS {_HOLDS} FROM {table}) "
        f"WHERE {_HOLDS} IS NOT TRUE"
    )


def guard(
    node: Node, expectations: Mapping[Key, Sequence[Entry]], made: Callable[[Key], bool], runtime: Runtime
) -> None:
    """Refuse to make ``node`` from a table whose rows break what is expected of them.

    Args:
        node: What is about to be made.
        expectations: Entries of EXPECT statements by the key of their table.
        made: Tells whether a table is made and checked in the same run; its own checks decide there.
        runtime: Where the rows are.

    Raises:
        ExpectationFailed: with the place of the condition in its EXPECT statement.
    """
    for key in node.reads:
        entries = expectations.get(key)
        if not entries or made(key):
            continue
        for entry in entries:
            outcome = evaluate(entry, runtime)
            if not outcome.passed:
                raise failure(entry, outcome)


def broken(tables: Iterable[str], runtime: Runtime) -> list[tuple[Entry, CheckOutcome]]:
    """The expectations that tables of the warehouse do not fulfil now; names that are no table have none."""
    catalog = catalog_of(runtime.workspace)
    found: list[tuple[Entry, CheckOutcome]] = []
    for table in dict.fromkeys(tables):
        entries = catalog.expectations(table)
        if entries and runtime.warehouse.exists(table):
            outcomes = ((entry, evaluate(entry, runtime)) for entry in entries)
            found.extend((entry, outcome) for entry, outcome in outcomes if not outcome.passed)
    return found


def failure(entry: Entry, outcome: CheckOutcome) -> ExpectationFailed:
    """The error of a table that breaks an expectation, placed in the EXPECT statement."""
    statement = expectation(entry)
    span = statement.condition_span
    condition = _shown(statement)
    return ExpectationFailed(
        outcome.description,
        hint=f"SELECT * FROM {statement.table} WHERE ({condition}) IS NOT TRUE shows them; correct the rows, "
        f"or give the expectation up with DROP EXPECT {condition} ON {statement.table}."
        if outcome.preview is not None
        else f"DROP EXPECT {condition} ON {statement.table} gives the expectation up.",
    ).at(statement.source, span.start, len(span))


def _shown(statement: Expect) -> str:
    return " ".join(statement.condition.split())


def _rendered(statement: Expect) -> Rendered:
    """The condition as a query of one column, ``thano_holds``, over the table."""
    span, before = statement.condition_span, "SELECT ("
    # A comment may end the condition; the line's end keeps it from the bracket.
    text = f"{before}{statement.condition}\n) AS {_HOLDS} FROM {quote(statement.table)}"
    pieces = (
        (0, span.start, False),
        (len(before), span.start, True),
        (len(before) + len(span), span.end, False),
    )
    return Rendered(text, pieces)


@contextmanager
def _located(statement: Expect) -> Iterator[None]:
    """Turn DuckDB's errors about the condition into errors with a place in the statement."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        query = Query(statement.source, statement.condition_span)
        raise in_users_text(error, query, _rendered(statement)) from None


def checks_to_drop(statement: DropExpect, kept: list[Entry]) -> list[Entry]:
    """Those of ``kept``, the table's expectations, that the statement gives up."""
    if statement.condition_span is None:
        return kept
    asked = Expect(
        source=statement.source,
        span=statement.span,
        options=statement.options,
        condition_span=statement.condition_span,
        table=statement.table,
        table_span=statement.table_span,
    )
    return [entry for entry in kept if entry.statement.canonical() == asked.canonical()]
