"""Which columns a column is made from, by sqlglot's reading of the query.

What it cannot tell is left out: lineage that is missing misleads nobody, lineage that is wrong does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from thano_assets.catalog import catalog_of
from thano_assets.catalog.entries import nested_names
from thano_assets.graph.build import Key
from thano_assets.sql.query import Query
from thano_assets.sql.reads import tables_read
from thano_assets.sql.statements import EncoderQuery

if TYPE_CHECKING:
    from sqlglot import lineage as sqlglot_lineage

    from thano_assets.assets.runtime import Runtime

#: For each column, the columns (of the asset with that key) that it is made from.
ColumnLineage = dict[str, list[tuple[Key, str]]]

# Beyond these the work, which grows with the square of the columns, would take seconds.
_LONGEST_QUERY = 20_000
_MOST_COLUMNS = 100


def of_query(
    sql: str,
    columns: Sequence[str],
    schemas: Mapping[str, Sequence[str]],
    relation_key: Callable[[str], Key | None],
) -> ColumnLineage:
    """For each column of a query, the columns of tables that its value comes from.

    Columns that come from none, such as ``count(*)``, are left out, and all of them where the query cannot be
    understood whole. Never raises for a query.

    Args:
        sql: A query in DuckDB's SQL, nested statements replaced by their tables.
        columns: The query's columns, as DuckDB names them.
        schemas: The columns of each table that it reads.
        relation_key: The asset's key of a table's name, ``None`` for one that is no asset.
    """
    if len(sql) > _LONGEST_QUERY or len(columns) > _MOST_COLUMNS or not schemas:
        return {}
    try:
        return _traced(sql, columns, schemas, relation_key)
    except Exception:
        # sqlglot reads most of DuckDB's SQL, not all of it, and tells so by errors of many kinds.
        return {}


def of_rows(query: Query, columns: Sequence[str] | None, runtime: Runtime) -> ColumnLineage:
    """The lineage of a query's rows; ``columns`` are asked of DuckDB where they are not known."""
    import duckdb

    from thano_assets.assets.tables.queries import prepare
    from thano_assets.resources.warehouse import describe, quote

    sql = query.render(nested_names(query)).text
    catalog = catalog_of(runtime.workspace)
    keys = {}
    for name in tables_read(sql).names():
        entry = catalog.relation(name)
        keys[name.casefold()] = None if entry is None else (entry.kind.value, entry.name)
    if not keys:
        return {}
    try:
        with runtime.warehouse.read() as connection:
            schemas = {name: [column.name for column in describe(connection, quote(name))] for name in keys}
            if columns is None:
                prepared = f"({prepare(query, connection, runtime)})"
                columns = [column.name for column in describe(connection, prepared)]
    except duckdb.Error:  # a table that only the query's own connection knows, such as LIST's
        return {}
    return of_query(sql, columns, schemas, lambda name: keys.get(name.casefold()))


def with_predictions(query: ColumnLineage, read: Sequence[str], added: Sequence[str]) -> ColumnLineage:
    """The lineage of a prediction table: its query's columns, and ``added`` from those that were read."""
    folded = {name.casefold() for name in read}
    found = [one for name, sources in query.items() if name.casefold() in folded for one in sources]
    sources = list(dict.fromkeys(found))
    return {**query, **({name: list(sources) for name in added} if sources else {})}


def with_vectors(
    statement: EncoderQuery, added: Sequence[str], columns: Sequence[str], runtime: Runtime
) -> ColumnLineage:
    """The lineage of what CONVERT or SEARCH made: what it added comes from the text, or from its vectors."""
    kept = [column for column in columns if column not in added]
    vectors = str(statement.options.get("emb_col") or "").casefold()
    read = [name for name in kept if name.casefold() == vectors][:1]
    return with_predictions(
        of_rows(statement.query, kept, runtime), read or [str(statement.options.value("text_col"))], added
    )


def _traced(
    sql: str,
    columns: Sequence[str],
    schemas: Mapping[str, Sequence[str]],
    relation_key: Callable[[str], Key | None],
) -> ColumnLineage:
    from sqlglot import exp, parse_one
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    spelt = {table.casefold(): {name.casefold(): name for name in names} for table, names in schemas.items()}
    # The types do not matter here; a schema needs one for each column.
    schema: dict[str, object] = {table: dict.fromkeys(names, "VARCHAR") for table, names in spelt.items()}
    tree = parse_one(sql, dialect="duckdb")
    if not isinstance(tree, exp.Query) or any(part.args.get("by_name") for part in tree.walk()):
        return {}
    # Quoted names keep their case in sqlglot; DuckDB does not tell cases apart.
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("this", identifier.this.casefold())
    qualified = qualify(tree, schema=schema, dialect="duckdb")
    scope = build_scope(qualified)
    names = [column.casefold() for column in columns]
    # Where it names other columns than DuckDB, it has read something else.
    if scope is None or list(qualified.named_selects) != names or len(set(names)) != len(names):
        return {}
    found = {}
    for column in columns:
        node = lineage(column.casefold(), qualified, schema=schema, dialect="duckdb", scope=scope, copy=False)
        sources = _sources(node, spelt, relation_key)
        if sources:
            found[column] = sources
    return found


def _sources(
    origins: sqlglot_lineage.Node,
    spelt: Mapping[str, Mapping[str, str]],
    relation_key: Callable[[str], Key | None],
) -> list[tuple[Key, str]]:
    """The columns of assets that a column's tree of origins ends in."""
    from sqlglot import exp

    found: dict[tuple[Key, str], None] = {}
    for part in origins.walk():
        if part.downstream or not isinstance(part.expression, exp.Table):
            continue
        table = part.expression.name.casefold()
        column = part.name.rpartition(".")[2].strip('"').casefold()
        key = relation_key(table)
        if key is not None and column in spelt.get(table, {}):
            found[key, spelt[table][column]] = None
    return list(found)
