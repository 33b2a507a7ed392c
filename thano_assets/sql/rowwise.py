"""Queries that pick rows and columns of one table and do nothing else, so that rows can be told by number."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from thano_assets.sql.judge import plain_spaces, query_of, syntax_tree

#: The column that :meth:`Rowwise.row_ids` gives.
ROW = "thano_row"


@dataclass(frozen=True)
class Rowwise:
    """A query of the form ``SELECT * FROM t WHERE …`` or ``SELECT a, b AS c FROM t WHERE …``.

    Every row of its result is a row of the table, and every column one of the table's.

    Attributes:
        table: the table's name as written.
        filtered: whether it has a WHERE.
    """

    table: str
    filtered: bool
    _tree: dict[str, Any]

    def column(self, name: str) -> str | None:
        """The table's column behind the column ``name`` of the result; ``None`` if that is unclear."""
        items = self._node["select_list"]
        stars = [item for item in items if item["class"] == "STAR"]
        named = [item for item in items if item not in stars and _name(item).casefold() == name.casefold()]
        if stars and not named and len(stars) == 1:
            return name
        if stars or len(named) != 1:
            return None
        path = named[0]["column_names"]
        own = (self._source["alias"] or self.table).casefold()
        if len(path) == 1 or (len(path) == 2 and path[0].casefold() == own):
            return str(path[-1])
        return None

    def row_ids(self) -> str:
        """DuckDB's ``rowid`` of the query's rows, as the column :data:`ROW`."""
        return f"SELECT {ROW} FROM ({query_of(self._numbered())})"

    def of_rows(self, relation: str) -> str:
        """The query's columns and :data:`ROW` of the table's rows whose number is in ``relation``'s ``row``.

        A WHERE counts for nothing here; rows come in any order.
        """
        tree = self._numbered()
        tree["statements"][0]["node"]["where_clause"] = None
        return f"{query_of(tree)} WHERE rowid IN (SELECT row FROM {relation})"

    def _numbered(self) -> dict[str, Any]:
        """The parse tree with ``rowid`` as one more column; a WHERE may use the names of the others."""
        tree = deepcopy(self._tree)
        tree["statements"][0]["node"]["select_list"].append(_reference(["rowid"], ROW))
        return tree

    @property
    def _node(self) -> dict[str, Any]:
        found: dict[str, Any] = self._tree["statements"][0]["node"]
        return found

    @property
    def _source(self) -> dict[str, Any]:
        found: dict[str, Any] = self._node["from_table"]
        return found


def rowwise(sql: str) -> Rowwise | None:
    """``sql`` as a :class:`Rowwise` query, ``None`` where it is none or does more than that."""
    tree = syntax_tree(plain_spaces(sql))
    if tree is None or len(tree["statements"]) != 1:
        return None
    node = tree["statements"][0]["node"]
    if not _picks(node):
        return None
    source = node["from_table"]
    inner = source["subquery"]["node"] if source["type"] == "SUBQUERY" and not _altered(source) else None
    if inner is not None and _picks(inner) and _is_whole(inner):
        # FROM (FROM t), which is how a nested statement stands in a query
        source = node["from_table"] = {**inner["from_table"], "alias": source["alias"]}
    if source["type"] != "BASE_TABLE" or _altered(source):
        return None
    return Rowwise(source["table_name"], node["where_clause"] is not None, tree)


def _picks(node: dict[str, Any]) -> bool:
    """Whether a query's node picks rows and columns and does nothing else."""
    return (
        node["type"] == "SELECT_NODE"
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and node["aggregate_handling"] == "STANDARD_HANDLING"
        and not any(node[part] for part in ("group_expressions", "group_sets", "having", "sample", "qualify"))
        and all(map(_is_plain, node["select_list"]))
    )


def _is_whole(node: dict[str, Any]) -> bool:
    """Whether a node that picks rows and columns picks all of a table's."""
    source, items = node["from_table"], node["select_list"]
    return (
        source["type"] == "BASE_TABLE"
        and not _altered(source)
        and not source["alias"]
        and node["where_clause"] is None
        and len(items) == 1
        and items[0]["class"] == "STAR"
        and not (items[0]["exclude_list"] or items[0]["qualified_exclude_list"])
    )


def _altered(source: dict[str, Any]) -> bool:
    """Whether what stands after FROM is more than a name, a query and an alias."""
    parts = ("sample", "schema_name", "catalog_name", "column_name_alias", "at_clause")
    return any(source.get(part) for part in parts)


def _is_plain(item: dict[str, Any]) -> bool:
    if item["class"] == "STAR":
        return not (item["columns"] or item["expr"] or item["replace_list"] or item["rename_list"])
    return item["class"] == "COLUMN_REF" and item["column_names"][-1].casefold() != "rowid"


def _name(item: dict[str, Any]) -> str:
    return str(item["alias"] or item["column_names"][-1])


def _reference(path: list[str], alias: str) -> dict[str, Any]:
    return {
        "class": "COLUMN_REF",
        "type": "COLUMN_REF",
        "alias": alias,
        "query_location": 0,
        "query_location_length": 0,
        "column_names": path,
    }
