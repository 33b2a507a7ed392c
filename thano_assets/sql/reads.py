"""Which tables and files a query reads, from DuckDB's own parse tree."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from thano_assets.errors import SyntaxProblem, UnsupportedStatement
from thano_assets.sql.judge import NOWHERE, char_offset, deep_trees, plain_spaces, syntax_tree
from thano_assets.sql.lexer import QUOTED, STRING, WORD, Token, tokenize

_EXPLAIN_SETTINGS = ("FORMAT", "ANALYZE", "VERBOSE", "COSTS")


@dataclass(frozen=True, slots=True)
class TableRead:
    """A table that a query reads: its name as written and its 0-based character offset in the query."""

    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class FileRead:
    """A file that a query reads: its path, or the table function where the path is not a constant."""

    path_or_function: str
    offset: int


@dataclass(frozen=True, slots=True)
class Reads:
    """What a query reads, in the order of the text; a table read twice is listed twice."""

    tables: list[TableRead] = field(default_factory=list)
    files: list[FileRead] = field(default_factory=list)

    def names(self) -> list[str]:
        """Each table once (whatever the case), in the order of the text."""
        first: dict[str, str] = {}
        for table in self.tables:
            first.setdefault(table.name.casefold(), table.name)
        return list(first.values())


_FILE_NAME = re.compile(
    r"\.(?:csv|tsv|txt|parquet|json|jsonl|ndjson|xlsx|arrow|feather|avro|db|duckdb|sqlite)(?:\.(?:gz|zst|bz2))?$|[/\\*]",
    re.IGNORECASE,
)
_FILE_FUNCTION = re.compile(
    r"read_\w+|sniff_csv|glob|parquet_\w+|st_read\w*|\w+_scan|arrow_scan\w*|which_secret|json_execute_serialized_sql",
    re.IGNORECASE,
)
_WRITING_NODES = frozenset(
    f"{verb}_QUERY_NODE" for verb in ("COPY", "INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE")
)
_SYSTEM_SCHEMAS = frozenset({"information_schema", "pg_catalog"})
_SYSTEM_VIEW = re.compile(
    r"duckdb_(?:columns|constraints|databases|indexes|logs|schemas|tables|types|views)"
    r"|pragma_database_list|sqlite_(?:temp_)?(?:master|schema)",
    re.IGNORECASE,
)
_PIVOT_WORDS = ("PIVOT", "PIVOT_WIDER")
_PIVOT_ENDS = frozenset({"USING", "GROUP", "ORDER", "LIMIT", "OFFSET", "UNION", "INTERSECT", "EXCEPT"})
_QUERY_STARTS = ("SELECT", "FROM", "WITH", "VALUES", "TABLE", "(")


@lru_cache(maxsize=2048)
def tables_read(rendered_sql: str) -> Reads:
    """The tables and files that a query reads.

    Names that ``WITH`` defines are left out where they are visible, system views always. Names are as they
    were written (DuckDB finds tables whatever the case); ``main.t`` is ``t``, another schema stays in it.

    Args:
        rendered_sql: a query that DuckDB parses, such as ``Query.render(…).text``.

    Raises:
        SyntaxProblem: DuckDB has no parse tree for it.
    """
    with deep_trees():
        return _tables_read(rendered_sql)


def _tables_read(rendered_sql: str) -> Reads:
    sql = plain_spaces(rendered_sql)
    tokens = tokenize(sql)
    skipped = after_explain(tokens)
    if skipped and skipped < len(tokens):
        start = tokens[skipped].start
        sql = " " * start + sql[start:]
        tokens = tokens[skipped:]
    tree = syntax_tree(sql)
    if tree is not None:
        return _Reader(sql, tokens, _Edits()).read(tree)
    edits = _fix_pivots(tokens)
    edited = edits.apply(sql)
    tree = syntax_tree(edited)
    if tree is None:
        raise SyntaxProblem(
            "Which tables this query reads cannot be told.",
            hint="Give the columns of every PIVOT: PIVOT t ON column IN ('a', 'b').",
        )
    reads = _Reader(edited, tokenize(edited), edits).read(tree)
    known = {name.casefold() for name in _defined_names(tree)}
    for start, end in edits.queries:
        inner = tables_read(" " * start + sql[start:end])
        reads.tables.extend(table for table in inner.tables if table.name.casefold() not in known)
        reads.files.extend(inner.files)
    reads.tables.sort(key=lambda table: table.offset)
    reads.files.sort(key=lambda file: file.offset)
    return reads


@dataclass
class _Edits:
    """Replacements made in a query, and the subqueries that they took out."""

    changes: list[tuple[int, int, str]] = field(default_factory=list)
    queries: list[tuple[int, int]] = field(default_factory=list)

    def apply(self, sql: str) -> str:
        parts = []
        position = 0
        for start, end, text in self.changes:
            parts += [sql[position:start], text]
            position = end
        return "".join([*parts, sql[position:]])

    def original(self, offset: int) -> int:
        """The offset before the edits of an offset after them."""
        starts, shifts = self._shifts
        number = bisect_right(starts, offset) - 1
        if number < 0:
            return offset
        start, _, text = self.changes[number]
        if offset < starts[number] + len(text):
            return start
        return offset - shifts[number + 1]

    @cached_property
    def _shifts(self) -> tuple[list[int], list[int]]:
        """Where each change begins after the edits; how far the text behind 0, 1, … changes is moved."""
        starts, shifts = [], [0]
        for start, end, text in self.changes:
            starts.append(start + shifts[-1])
            shifts.append(shifts[-1] + len(text) - (end - start))
        return starts, shifts


def _fix_pivots(tokens: list[Token]) -> _Edits:
    """Give every ``PIVOT … ON column`` a list of values; without one DuckDB must look at the data first."""
    edits = _Edits()
    for index, token in enumerate(tokens):
        if token.upper not in _PIVOT_WORDS:
            continue
        on = end = None
        depth = 0
        for position in range(index + 1, len(tokens)):
            word = tokens[position].upper
            depth += (word in ("(", "[")) - (word in (")", "]"))
            end = position
            if depth < 0 or (depth == 0 and on is not None and word in _PIVOT_ENDS):
                break
            if depth == 0 and word == "ON":
                on = position
        else:
            end = len(tokens)
        if on is not None and end is not None:
            _fix_entries(tokens[on + 1 : end], edits)
    edits.changes.sort()
    return edits


def _fix_entries(tokens: list[Token], edits: _Edits) -> None:
    depth = entry = 0
    has_values = False
    for position, token in enumerate(tokens):
        depth += (token.upper in ("(", "[")) - (token.upper in (")", "]"))
        following = tokens[position + 1] if position + 1 < len(tokens) else None
        if depth == 0 and token.upper == "IN":
            has_values = True
            inner = tokens[position + 2].upper if position + 2 < len(tokens) else ""
            if following is not None and following.upper == "(" and inner in _QUERY_STARTS:
                close = _closing(tokens, position + 1)
                edits.changes.append((following.end, tokens[close].start, "''"))
                edits.queries.append((following.end, tokens[close].start))
        if depth == 0 and token.upper != "," and (following is None or following.upper == ","):
            if not has_values:
                edits.changes.append((tokens[entry].start, tokens[entry].start, "("))
                edits.changes.append((token.end, token.end, ") IN ('')"))
            has_values = False
        if depth == 0 and token.upper == ",":
            entry = position + 1


def _closing(tokens: list[Token], opening: int) -> int:
    depth = 0
    for position in range(opening, len(tokens)):
        depth += (tokens[position].upper == "(") - (tokens[position].upper == ")")
        if depth == 0:
            return position
    return len(tokens) - 1


def _defined_names(tree: Any) -> list[str]:
    """All names that ``WITH`` defines anywhere in a parse tree."""
    if isinstance(tree, list):
        return [name for item in tree for name in _defined_names(item)]
    if not isinstance(tree, dict):
        return []
    own = [entry["key"] for entry in (tree.get("cte_map") or {}).get("map", [])]
    return own + [name for value in tree.values() for name in _defined_names(value)]


class _Reader:
    """A walk over DuckDB's parse tree that knows which names are defined where."""

    def __init__(self, sql: str, tokens: list[Token], edits: _Edits) -> None:
        self.sql = sql
        self.tokens = tokens
        self.edits = edits
        self.reads = Reads()
        self.used: set[int] = set()
        self.unplaced: list[tuple[list[Any], int, str]] = []

    def read(self, tree: dict[str, Any]) -> Reads:
        self.walk(tree["statements"], frozenset())
        for target, index, name in self.unplaced:
            kind = type(target[index])
            target[index] = kind(name, self._find(name))
        self.reads.tables.sort(key=lambda table: table.offset)
        self.reads.files.sort(key=lambda file: file.offset)
        return self.reads

    def walk(self, node: Any, visible: frozenset[str]) -> None:
        if isinstance(node, list):
            for item in node:
                self.walk(item, visible)
            return
        if not isinstance(node, dict):
            return
        kind = node.get("type")
        if kind in _WRITING_NODES:
            raise UnsupportedStatement(
                f"{str(kind).partition('_')[0]} cannot stand inside a query.",
                hint="A query reads; COPY and CREATE TABLE are statements of their own.",
            )
        entries = (node.get("cte_map") or {}).get("map") or []
        for entry in entries:
            name = str(entry["key"]).casefold()
            # A name is known to those after it; only a recursive one knows itself (below).
            self.walk(entry["value"], visible)
            visible |= {name}
        if kind == "RECURSIVE_CTE_NODE":
            visible |= {str(node.get("cte_name", "")).casefold()}
        shown = kind == "SHOW_REF" and node.get("table_name") and node.get("show_type") != "SHOW_SPECIAL"
        if kind == "BASE_TABLE" or shown:
            self._table(node, visible)
        elif kind == "TABLE_FUNCTION":
            self._function(node, visible)
        for key, value in node.items():
            if key != "cte_map" and isinstance(value, (dict, list)):
                self.walk(value, visible)

    def _table(self, node: dict[str, Any], visible: frozenset[str]) -> None:
        path = [str(part) for part in (node.get("qualified_name") or {}).get("path") or [node["table_name"]]]
        name = path[-1]
        schemas = [part.casefold() for part in path[:-1]]
        if not schemas and (name.casefold() in visible or _SYSTEM_VIEW.fullmatch(name)):
            return
        if _SYSTEM_SCHEMAS.intersection(schemas) or (schemas == ["recurring"] and name.casefold() in visible):
            return
        place = self._place(node)
        literal = place is not None and self.sql[self.plain.get(place, place) :][:1] == "'"
        if not schemas and (literal or _FILE_NAME.search(name)):
            self._add(self.reads.files, FileRead(name, place if place is not None else -1), name)
            return
        if schemas and schemas[-1] not in ("main", "public"):
            name = ".".join(path)
        self._add(self.reads.tables, TableRead(name, place if place is not None else -1), name)

    @cached_property
    def plain(self) -> dict[int, int]:
        """Where each token of the query with the edits began in the query as it came -> where it begins."""
        if not self.edits.changes:
            return {}
        begins: dict[int, int] = {}
        for token in self.tokens:
            begins.setdefault(self.edits.original(token.start), token.start)
        return begins

    def _function(self, node: dict[str, Any], visible: frozenset[str]) -> None:
        function = node.get("function") or {}
        name = str(function.get("function_name", ""))
        arguments = [argument.get("expression") or {} for argument in function.get("arguments") or []]
        constants = _constants(arguments[:1])
        place = self._place(node) or 0
        if name.casefold() == "query_table" and constants is not None:
            for text, location in constants:
                if text.casefold() not in visible:
                    self.reads.tables.append(TableRead(text, self._offset(location, place)))
        elif name.casefold() == "query" and constants:
            for text, location in constants:
                at = self._offset(location, place)
                inner = tables_read(text)
                self.reads.tables.extend(
                    TableRead(table.name, at)
                    for table in inner.tables
                    if table.name.casefold() not in visible
                )
                self.reads.files.extend(FileRead(file.path_or_function, at) for file in inner.files)
        elif name.casefold() in ("query", "query_table"):
            self.reads.files.append(FileRead(name, place))
        elif _FILE_FUNCTION.fullmatch(name):
            for text, location in constants or [(name, NOWHERE)]:
                self.reads.files.append(FileRead(text, self._offset(location, place)))

    def _add(self, target: list[Any], read: TableRead | FileRead, name: str) -> None:
        if read.offset < 0:
            self.unplaced.append((target, len(target), name))
        else:
            self.used.add(read.offset)
        target.append(read)

    def _place(self, node: dict[str, Any]) -> int | None:
        location = node.get("query_location", NOWHERE)
        return None if location >= NOWHERE else self._offset(location, 0)

    def _offset(self, location: int, otherwise: int) -> int:
        return otherwise if location >= NOWHERE else self.edits.original(char_offset(self.sql, location))

    def _find(self, name: str) -> int:
        """Where a table stands that DuckDB gives no place for: the first unused token of that name."""
        for token in self.tokens:
            offset = self.edits.original(token.start)
            if (
                token.kind in (WORD, QUOTED, STRING)
                and token.value.casefold() in (name.casefold(), name.split(".")[-1].casefold())
                and offset not in self.used
            ):
                self.used.add(offset)
                return offset
        return 0


def _constants(expressions: list[dict[str, Any]]) -> list[tuple[str, int]] | None:
    """Texts and byte offsets of string constants, alone or in a list; ``None`` where one is no constant."""
    found: list[tuple[str, int]] = []
    for expression in expressions:
        literal = expression.get("literal") or {}
        if expression.get("class") == "CONSTANT" and literal.get("kind") == "STRING":
            found.append((str(literal.get("text", "")), int(expression.get("query_location", NOWHERE))))
        elif expression.get("function_name") == "list_value":
            inner = _constants(
                [argument.get("expression") or {} for argument in expression.get("arguments") or []]
            )
            if inner is None:
                return None
            found.extend(inner)
        else:
            return None
    return found


def after_explain(tokens: list[Token]) -> int:
    """How many tokens ``EXPLAIN [ANALYZE] [(settings)]`` takes at the start of a query; 0 without one."""
    if not tokens or tokens[0].upper != "EXPLAIN":
        return 0
    index = 1
    if index < len(tokens) and tokens[index].upper in ("ANALYZE", "ANALYSE"):
        index += 1
    if (
        index + 1 < len(tokens)
        and tokens[index].upper == "("
        and tokens[index + 1].upper in _EXPLAIN_SETTINGS
    ):
        while index < len(tokens) and tokens[index].upper != ")":
            index += 1
        index += 1
    return index
