"""Rows of JSON files: strings stay strings, and a column of several kinds of values becomes text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataFileError
from ..warehouse import literal, quote
from . import lossless
from .options import ReadOptions

if TYPE_CHECKING:
    import duckdb

_NUMBERS = ("UBIGINT", "BIGINT", "HUGEINT", "DOUBLE")
_LARGEST_OBJECT = 1 << 24  # bytes; DuckDB's own default


def typed(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    format: str,
    options: ReadOptions,
    *,
    name: str,
    widened: Mapping[str, str],
) -> tuple[str, list[str], list[str]]:
    """The rows of JSON files, every value looked at before a type is chosen.

    Args:
        connection: reads the files.
        files: UTF-8 without a byte order mark.
        format: ``jsonl`` for one object a line, else found from the file.
        options: types that a person chose.
        name: what to call the files in an error.
        widened: types that columns need besides; names in lower case.

    Returns:
        A query, the names of its columns, and what a person should know of the types.

    Raises:
        DataFileError: there are no objects in it, or two keys are one name to SQL.
    """
    shape = "newline_delimited" if format == "jsonl" else "auto"
    size = options.max_line_size or _LARGEST_OBJECT
    settings = f"format = '{shape}', maximum_object_size = {size}"
    listed = lossless.text_literal_list([str(file) for file in files])
    found = connection.execute(
        f"SELECT CAST(json_group_structure(json) AS VARCHAR) FROM read_json_objects({listed}, {settings})"
    ).fetchall()[0][0]
    structure = json.loads(found) if found else None
    if not isinstance(structure, dict) or not structure:
        raise DataFileError(
            f"{name} has no JSON objects that could be rows.",
            hint='Rows are objects: [{"review": "Great!", "label": 1}], or one object a line.',
        )
    _check_keys(name, structure)
    kinds = {key: _kind(value) for key, value in structure.items()}
    read = f"read_json({listed}, {settings}, columns = {{{_columns(kinds)}}})"
    chosen = {
        key: options.type_of(key)
        or ("VARCHAR" if options.all_text else None)
        or ("VARCHAR" if widened.get(key.casefold()) == "VARCHAR" else None)
        for key in kinds
    }
    numbers = [key for key, value in structure.items() if value in _NUMBERS and chosen[key] is None]
    types = _number_types(connection, read, {key: structure[key] for key in numbers})
    notes: list[str] = []
    for key, kind in kinds.items():
        if chosen[key] is None and kind == "JSON" and types.get(key, "VARCHAR") == "VARCHAR":
            why = (
                "it has numbers of more digits than fit"
                if key in types
                else "its values are of several kinds"
            )
            notes.append(f"Column {key} is text: {why}.")
    expressions = [
        _expression(number, key, kind, chosen[key], types.get(key))
        for number, (key, kind) in enumerate(kinds.items())
    ]
    return f"SELECT {', '.join(expressions)} FROM {read}", list(kinds), notes


def _check_keys(name: str, structure: dict[str, Any]) -> None:
    seen: dict[str, str] = {}
    for key in structure:
        other = seen.setdefault(key.casefold(), key)
        if other != key:
            raise DataFileError(
                f"{name} has the keys {other!r} and {key!r}, which are one name for a column.",
                hint="Rename one of them in the file: SQL does not tell upper from lower case in names.",
            )


def _columns(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{literal(key)}: {literal(kind)}" for key, kind in kinds.items())


def _kind(structure: Any) -> str:
    """The DuckDB type to read a value as: numbers and values of several kinds as JSON, to be looked at."""
    if isinstance(structure, dict):
        if not structure:
            return "JSON"
        if len({key.casefold() for key in structure}) < len(structure):
            return "JSON"  # no STRUCT has both
        return f"STRUCT({', '.join(f'{quote(key)} {_nested(value)}' for key, value in structure.items())})"
    if isinstance(structure, list):
        return f"{_nested(structure[0])}[]" if structure else "JSON"
    return {"VARCHAR": "VARCHAR", "BOOLEAN": "BOOLEAN", "NULL": "VARCHAR"}.get(structure, "JSON")


def _nested(structure: Any) -> str:
    """As :func:`_kind`, inside of a structure, where numbers have their own types."""
    if isinstance(structure, (dict, list)):
        return _kind(structure)
    return {"NULL": "VARCHAR", "UBIGINT": "BIGINT"}.get(structure, structure)


def _expression(number: int, key: str, kind: str, chosen: str | None, number_type: str | None) -> str:
    """SQL of a column's value in the type that was chosen or found for it."""
    column = quote(key)
    if kind not in ("JSON", "VARCHAR", "BOOLEAN"):
        return f"CAST({column} AS {chosen}) AS {column}" if chosen else column
    text = f"({column} ->> '$')" if kind == "JSON" else f"CAST({column} AS VARCHAR)"
    if chosen is not None and chosen.upper() != "VARCHAR":
        return lossless.given(key, chosen).expression(number, text=text)
    if chosen is None and kind == "BOOLEAN":
        return column
    if number_type is not None and number_type != "VARCHAR":
        return f"CAST({text} AS {number_type}) AS {column}"
    return f"{text} AS {column}"


def _number_types(
    connection: duckdb.DuckDBPyConnection, read: str, structures: Mapping[str, str]
) -> dict[str, str]:
    """BIGINT or DOUBLE for columns of numbers that are in it what the file says; VARCHAR for others."""
    types = {key: "BIGINT" for key, structure in structures.items() if structure == "BIGINT"}
    keys = [key for key in structures if key not in types]
    for start in range(0, len(keys), 200):
        part = keys[start : start + 200]
        tests = [_changes(f"({quote(key)} ->> '$')", structures[key]) for key in part]
        changed = [f"count(*) FILTER ({test})" for test in tests]
        counts = connection.execute(f"SELECT {', '.join(changed)} FROM {read}").fetchall()[0]
        for key, count in zip(part, counts, strict=True):
            fitting = "DOUBLE" if structures[key] == "DOUBLE" else "BIGINT"
            types[key] = "VARCHAR" if count else fitting
    return types


def _changes(text: str, structure: str) -> str:
    """SQL that is true where a number would be another one as BIGINT, or as DOUBLE for such a structure."""
    if structure != "DOUBLE":
        return f"{text} IS NOT NULL AND TRY_CAST({text} AS BIGINT) IS NULL"
    long = f"length({text}) > 15 AND regexp_full_match({text}, '-?[0-9]{{16,}}')"
    stored = f"TRY_CAST(TRY_CAST({text} AS DOUBLE) AS DECIMAL(38, 0))"
    return f"{long} AND {stored} IS DISTINCT FROM TRY_CAST({text} AS DECIMAL(38, 0))"
