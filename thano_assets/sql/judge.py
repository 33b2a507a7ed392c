"""DuckDB's own parser, asked about queries.

Only the parser is used: a private in-memory connection without threads and without access to files;
nothing is bound or run. DuckDB counts bytes of UTF-8, everything here counts characters.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thano_assets.errors import SyntaxProblem, char_width
from thano_assets.sql.lexer import tokenize

if TYPE_CHECKING:
    import duckdb

_DEEPEST = 20_000
_local = threading.local()

#: DuckDB's mark for "no location".
NOWHERE = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Complaint:
    """What DuckDB's parser objects to: its sentence, and a 0-based character offset and length."""

    message: str
    offset: int
    length: int


def _connection() -> duckdb.DuckDBPyConnection:
    """This thread's connection; a forked child gets its own, for DuckDB does not survive a fork."""
    if getattr(_local, "pid", None) != os.getpid():
        import duckdb

        _local.connection = duckdb.connect(
            ":memory:",
            config={
                "threads": "1",
                "enable_external_access": "false",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
            },
        )
        _local.pid = os.getpid()
    connection: duckdb.DuckDBPyConnection = _local.connection
    return connection


def plain_spaces(sql: str) -> str:
    """``sql`` with every character of white space outside strings and names that is not ASCII made a blank.

    DuckDB does the same, but then counts its places in the shortened bytes; done here first, one character
    for one, places stay true.
    """
    if sql.isascii():
        return sql
    parts = []
    position = 0
    for token in tokenize(sql):
        parts.append(_WIDE_SPACE.sub(" ", sql[position : token.start]))
        parts.append(token.text)
        position = token.end
    parts.append(_WIDE_SPACE.sub(" ", sql[position:]))
    return "".join(parts)


_WIDE_SPACE = re.compile(r"(?![\x00-\x7f])[\s\ufeff\u200b]")


def statement_kinds(sql: str) -> list[str] | Complaint:
    """The kinds of statements that DuckDB finds in ``sql`` (``SELECT``, ``MULTI``, …), or its complaint."""
    import duckdb

    sql = plain_spaces(sql)
    try:
        return [statement.type.name for statement in _connection().extract_statements(sql)]
    except duckdb.Error as error:
        found = _serialized(sql)
        if found.get("error") and found.get("error_type") != "not implemented":
            start, length = _location(found)
            before = char_offset(sql, start)
            after = char_offset(sql, start + length)
            return Complaint(
                without_settings(str(found.get("error_message", error))), before, max(1, after - before)
            )
        message = without_settings(str(error).split("\n", 1)[0].split(": ", 1)[-1])
        return Complaint(message, duckdb_error_offset(str(error), sql) or 0, 1)


def syntax_tree(sql: str) -> dict[str, Any] | None:
    """DuckDB's parse tree of a query, or ``None`` where it has none (``PIVOT`` without ``IN``)."""
    found = _serialized(sql)
    return None if found.get("error") else found


def query_of(tree: dict[str, Any]) -> str:
    """The query of a parse tree, as :func:`syntax_tree` gives it, in DuckDB's own words."""
    [[text]] = _connection().execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()
    return str(text)


def _serialized(sql: str) -> dict[str, Any]:
    [[text]] = _connection().execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    try:
        result: dict[str, Any] = json.loads(text)
    except RecursionError:
        raise SyntaxProblem(
            "The query is nested too deep, or joins too many things, to be read.",
            hint="Make it of several statements: CREATE TABLE part AS SELECT ….",
        ) from None
    return result


@contextmanager
def deep_trees() -> Iterator[None]:
    """Let parse trees be as deep as DuckDB makes them: a sum of a thousand terms is a thousand levels."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _location(found: dict[str, Any]) -> tuple[int, int]:
    pair = re.fullmatch(r"\[(\d+),(\d+)\]", str(found.get("location", "")))
    if pair and int(pair[1]) < NOWHERE:
        return int(pair[1]), int(pair[2])
    position = str(found.get("position", ""))
    return (int(position), 1) if position.isdigit() and int(position) < NOWHERE else (0, 1)


def char_offset(text: str, byte_offset: int) -> int:
    """The character offset of a byte offset into the UTF-8 of ``text``."""
    if text.isascii():
        return min(byte_offset, len(text))
    return len(text.encode()[:byte_offset].decode(errors="ignore"))


_SNIPPET = re.compile(r"LINE (\d+): (.*)\n( *)\^", re.MULTILINE)


def without_settings(message: str) -> str:
    """DuckDB's message without its advice to change a setting, which no statement may."""
    return re.sub(r' Use "SET [^"]+"[^.]*(\.|$)', "", message)


def duckdb_error_offset(message: str, sql: str) -> int | None:
    """The 0-based character offset in ``sql`` that the caret of a DuckDB error message points to, if any.

    DuckDB shows one line, cut with ``...`` where it is long, and a caret under the place.
    """
    snippets = list(_SNIPPET.finditer(message))
    if not snippets:
        return None
    snippet = snippets[-1]
    lines = sql.split("\n")
    number = int(snippet[1])
    if not 1 <= number <= len(lines):
        return None
    shown = snippet[2]
    before = len("".join(line + "\n" for line in lines[: number - 1]))
    caret = len(snippet[3]) - len(f"LINE {number}: ")
    if shown.startswith("..."):
        shown, caret = shown[3:], caret - 3
        shown = shown.removesuffix("...")
        start = lines[number - 1].find(shown)
        if start < 0:
            return None
    else:
        start = 0
    column = _column_of_width(lines[number - 1][start:], caret)
    return before + start + column


def _column_of_width(line: str, width: int) -> int:
    """The character index in ``line`` that stands at terminal column ``width``, as DuckDB pads its caret."""
    used = 0
    for index, char in enumerate(line):
        if used >= width:
            return index
        used += char_width(char)
    return len(line)
