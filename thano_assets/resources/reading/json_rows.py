"""Rows of JSON files: strings stay strings, and a column of several kinds of values becomes text."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...errors import DataFileError
from ..warehouse import literal, quote
from . import lossless
from .options import ReadOptions

if TYPE_CHECKING:
    import duckdb

_NUMBERS = ("UBIGINT", "BIGINT", "HUGEINT", "DOUBLE")
_LARGEST_OBJECT = 1 << 24  # bytes; DuckDB's own default
_TOO_LONG, _MIXED = "it has numbers of more digits than fit", "its values are of several kinds"
_FLAGGED = 2_000  # rows whose numbers are looked at one by one, to know the columns they are in
_TEXT = r'"(?:[^"\\]|\\.)*"'  # a string of JSON
_LONG = "[0-9.]{17,}|[0-9][eE][+-]?[0-9]{3}"  # numbers that a DOUBLE may not hold
_INT64, _INT128 = 2**63, 2**127


def typed(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    format: str,
    options: ReadOptions,
    *,
    name: str,
    widened: Mapping[str, str],
    as_written: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, list[str], list[str]]:
    """The rows of JSON files, every value looked at before a type is chosen.

    Args:
        connection: reads the files.
        files: UTF-8 without a byte order mark.
        format: ``jsonl`` for one object a line, else found from the file.
        options: types that a person chose.
        name: what to call the files in an error.
        widened: types that columns need besides; names in lower case.
        as_written: columns of which the files hold each value as the text that it was written as, and why.

    Returns:
        A query, the names of its columns, and what a person should know of the types.

    Raises:
        DataFileError: there are no objects in it, or two keys are one name to SQL.
        Respelled: numbers in it would be changed, or their spelling would where that was asked for.
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
    spelled = {}
    for key, value in structure.items():
        asked = options.all_text or "VARCHAR" in (options.type_of(key), widened.get(key.casefold()))
        mixed = value == "JSON" and options.type_of(key) is None
        if (asked or mixed) and key not in as_written and _respelled_by_duckdb(value):
            spelled[key] = "" if asked else _MIXED
    if not spelled:
        rounded = _rounded(connection, listed, settings, structure) - as_written.keys()
        spelled = dict.fromkeys(rounded, _TOO_LONG)
    if spelled:
        raise Respelled({**as_written, **spelled})
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
    notes = [
        f"Column {key} is text: {why}."
        for key, why in as_written.items()
        if why and options.type_of(key) is None
    ]
    for key, kind in kinds.items():
        if chosen[key] is None and kind == "JSON" and types.get(key, "VARCHAR") == "VARCHAR":
            notes.append(f"Column {key} is text: {_TOO_LONG if key in types else _MIXED}.")
    expressions = [
        _expression(number, key, kind, chosen[key], types.get(key))
        for number, (key, kind) in enumerate(kinds.items())
    ]
    return f"SELECT {', '.join(expressions)} FROM {read}", list(kinds), notes


class Respelled(Exception):  # noqa: N818 - a second try, not an error that is told
    """Columns whose values must be read as they are written, and why; DuckDB's reader changes numbers."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        super().__init__(", ".join(columns))
        self.columns = columns


def _respelled_by_duckdb(structure: Any) -> bool:
    return isinstance(structure, (dict, list)) or structure in (*_NUMBERS, "JSON")


def _inside(structure: Any, *kinds: str) -> bool:
    """Whether a structure has a value of one of the kinds at any depth."""
    if isinstance(structure, (dict, list)):
        return any(
            _inside(one, *kinds) for one in (structure.values() if isinstance(structure, dict) else structure)
        )
    return structure in kinds


def _rounded(
    connection: duckdb.DuckDBPyConnection, listed: str, settings: str, structure: dict[str, Any]
) -> set[str]:
    """Columns with numbers that would be others in the types of ``structure``."""
    nested = [key for key, value in structure.items() if isinstance(value, (dict, list))]
    long_integers = any(_inside(structure[key], "DOUBLE", "UBIGINT", "HUGEINT") for key in nested)
    if not long_integers and not _inside(structure, "DOUBLE"):
        return set()
    raw = f"regexp_replace(CAST(json AS VARCHAR), {literal(_TEXT)}, '', 'g')"
    own = f"regexp_replace(CAST(json -> '$' AS VARCHAR), {literal(_TEXT)}, '', 'g')"
    tests = [f"{lossless.digits(raw)} <> {lossless.digits(own)}"]
    if long_integers:
        tests.append(f"regexp_matches({raw}, '[0-9]{{17,}}')")
    rows = connection.execute(
        f"SELECT CAST(json AS VARCHAR) FROM read_json_objects({listed}, {settings}) "
        f"WHERE regexp_matches({raw}, '{_LONG}') AND ({' OR '.join(tests)}) LIMIT {_FLAGGED}"
    ).fetchall()
    found: set[str] = set()
    for (row,) in rows:
        for key, value in _as_written(row).items():
            if key not in found and not _kept(value, structure.get(key)):
                found.add(key)
    return found


class _Number(str):
    """A number as it is written."""


def _as_written(text: str) -> Any:
    return json.loads(text, parse_float=_Number, parse_int=_Number)


def _kept(value: Any, structure: Any) -> bool:
    """Whether the types of a structure hold a value's numbers as they are."""
    if isinstance(value, dict):
        return not isinstance(structure, dict) or all(
            _kept(one, structure.get(key)) for key, one in value.items()
        )
    if isinstance(value, list):
        return not isinstance(structure, list) or all(_kept(one, structure[0]) for one in value)
    if not isinstance(value, _Number):
        return True
    if structure in ("BIGINT", "UBIGINT", "HUGEINT"):
        most = _INT128 if structure == "HUGEINT" else _INT64
        return len(value) < 40 and -most <= int(value) < most
    return structure != "DOUBLE" or _significant(value) == _significant(repr(float(value)))


def _significant(number: str) -> str:
    return re.split("[eE]", number)[0].lstrip("-").replace(".", "").strip("0")


def write_as_written(file: Path, columns: Collection[str], copy: Path) -> None:
    """Copy the objects of a JSON file, one a line, with the values of some columns as texts.

    Args:
        file: UTF-8.
        columns: each value of these becomes the text that it is written as; null stays null.
        copy: is written.
    """
    with copy.open("w", encoding="utf-8") as out:
        for row in _objects(file):
            for key in columns:
                value = row.get(key)
                if value is not None and (isinstance(value, _Number) or not isinstance(value, str)):
                    row[key] = _written(value)
            out.write(_written(row) + "\n")


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file: in a list, or one after another."""
    text = file.read_text(encoding="utf-8-sig")
    decoder = json.JSONDecoder(parse_float=_Number, parse_int=_Number)
    place = 0
    while place < len(text):
        if text[place].isspace() or text[place] in ",[]":
            place += 1  # between objects; the file was read by DuckDB already, so its form is right
            continue
        value, place = decoder.raw_decode(text, place)
        yield value


def _written(value: Any) -> str:
    """JSON of a value with its numbers as they were written."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(
                f"{json.dumps(key, ensure_ascii=False)}: {_written(one)}" for key, one in value.items()
            )
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _check_keys(name: str, structure: dict[str, Any]) -> None:
    if "" in structure:
        raise DataFileError(
            f'{name} has a key without a name ("").', hint="Give it a name: it becomes a column."
        )
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
        if not structure or "" in structure:
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
        if chosen is None:
            return column
        return lossless.given(key, chosen).expression(number, text=f"CAST({column} AS VARCHAR)")
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
    stored = f"CAST(TRY_CAST({text} AS DOUBLE) AS VARCHAR)"
    return f"{text} IS NOT NULL AND {lossless.digits(text)} <> {lossless.digits(stored)}"
