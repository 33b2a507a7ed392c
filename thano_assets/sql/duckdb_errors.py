"""DuckDB's complaints about a query that it could parse, told about the user's own text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from thano_assets.errors import QueryError, ThanoError, UnknownColumn, UnknownTable
from thano_assets.sql.judge import duckdb_error_offset, without_settings

if TYPE_CHECKING:
    import duckdb

    from thano_assets.sql.query import Query, Rendered

_COLUMN = re.compile(r'Referenced column "(?P<name>[^"]+)" (?:not found|was not found)')
_MISSING_COLUMN = re.compile(r'(?:column named|Column) "(?P<name>[^"]+)"')
_TABLE = re.compile(r"Table with name (?P<name>\S+) does not exist")
_CANDIDATES = re.compile(r"(?:Candidate bindings|Candidates?): (?P<names>.+)")
_SUGGESTION = re.compile(r'Did you mean "(?P<name>[^"]+)"')
_REFUSED = re.compile(r"Cannot access (?:file|directory) \"(?P<path>[^\"]+)\"")


def in_users_text(error: duckdb.Error, query: Query, rendered: Rendered) -> ThanoError:
    """``error``, which DuckDB raised for ``rendered``, as an error with a place in the query's source."""
    message = str(error)
    first = message.split("\n", 1)[0]
    sentence = without_settings(first.split(": ", 1)[-1]).strip().rstrip(".") + "."
    found: ThanoError
    length = 1
    if match := _COLUMN.search(message):
        name = match["name"]
        candidates = _CANDIDATES.search(message)
        names = [part.strip().strip('"') for part in candidates["names"].split(",")] if candidates else []
        hint = f"Near it are: {', '.join(names)}." if names else "DESCRIBE the table to see its columns."
        found, length = UnknownColumn(f"There is no column {name} here.", hint=hint), len(name)
    elif match := _TABLE.search(message):
        name = match["name"].rstrip("!")
        suggestion = _SUGGESTION.search(message)
        hint = f"Did you mean {suggestion['name']}?" if suggestion else "LIST TABLE shows what is there."
        found, length = UnknownTable(f"There is no table {name}.", hint=hint), len(name)
    elif match := _REFUSED.search(message):
        found = QueryError(
            f"The query may not read the file {match['path']}: queries read tables.",
            hint="COPY it from the data folder, or add its folder to [files] allowed in thano.toml.",
        )
        length = len(match["path"])
    else:
        found = QueryError(sentence)
    offset = duckdb_error_offset(message, rendered.text)
    if offset is None and length > 1 and match:
        text = match.groupdict().get("name") or match.groupdict().get("path") or ""
        place = rendered.text.lower().find(text.rstrip("!").lower())
        offset = place if place >= 0 else None
    return found.at(query.source, rendered.to_source(offset or 0), length)
