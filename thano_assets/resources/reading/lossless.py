"""Types for columns of text, chosen so that every value stays what the file says.

A column has a type other than VARCHAR only where each of its spellings is the type's own (``12``,
``2026-01-02``, ``true``), or a plain decimal number. So ``00123``, ``yes``, ``12E3`` and ``1/2/2020`` stay
text. A decimal number may be spelled with other zeros (``1.10``), unless two spellings in its column would
become one number. The spelling test is the round trip ``CAST(CAST(x AS type) AS VARCHAR) = x``; DuckDB's
own sniffer asks only whether the cast is possible.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..warehouse import literal, quote

if TYPE_CHECKING:
    import duckdb

#: Rows from which types are inferred at first; DuckDB's own sample has as many.
SAMPLE_ROWS = 20_480

_MARK = "\x1f"
_REFUSED = re.compile(f"{_MARK}thano{_MARK}(\\d+){_MARK}(.*?){_MARK}", re.DOTALL)
_EXACT_DIGITS = 15  # significant digits that a DOUBLE always gives back
_LONGEST_TYPED = 64  # bytes: what is longer is no number, date or time that a type keeps
_FLOAT_DIGITS = 6  # and those that a FLOAT does

_INTEGER = "-?(0|[1-9][0-9]{0,14})"
_DECIMAL = r"-?(0|[1-9][0-9]*)\.[0-9]+"
_TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_INTEGER_TYPES = {"TINYINT", "SMALLINT", "INTEGER", "INT", "BIGINT", "HUGEINT", "UTINYINT"} | {
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
    "INT1",
    "INT2",
    "INT4",
    "INT8",
    "LONG",
    "SHORT",
}


@dataclass(frozen=True)
class TextColumn:
    """A column of text and the type that it gets.

    Attributes:
        name: Its name.
        type: A DuckDB type.
        test: SQL that is true of each spelling that the type holds without loss, with ``{x}`` for the value;
            ``None`` where all rows were looked at already.
        given: Whether a person chose the type.
        note: What a person should know about the choice.
    """

    name: str
    type: str = "VARCHAR"
    test: str | None = None
    given: bool = False
    note: str | None = None

    def expression(self, number: int, decimal: str = ".", text: str | None = None) -> str:
        """SQL that gives the typed value; a spelling that does not fit raises, see :func:`refused`.

        Args:
            number: the column's place among the columns, which the error tells.
            decimal: the decimal mark.
            text: SQL of the value as text; by default the column itself.
        """
        column = quote(self.name)
        x = text or column
        if self.type == "VARCHAR":
            return f"{x} AS {column}"
        filled = f"NULLIF({x}, '')"
        cast = f"CAST({_number_text(filled, decimal) if _is_number(self.type) else filled} AS {self.type})"
        if self.test is None:
            return f"{cast} AS {column}"
        fits = self.test.replace("{x}", x)
        missing = f"{x} IS NULL OR {x} = ''" if self.given else f"{x} IS NULL"
        mark = f"chr(31) || 'thano' || chr(31) || '{number}' || chr(31) || left({x}, 200) || chr(31)"
        return f"CASE WHEN {missing} THEN NULL WHEN {fits} THEN {cast} ELSE error({mark}) END AS {column}"


def refused(error: Exception) -> tuple[int, str] | None:
    """The number of the column and the value (200 characters at most) that raised in an expression."""
    found = _REFUSED.search(str(error))
    return (int(found[1]), found[2]) if found else None


def infer(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    columns: Sequence[TextColumn],
    *,
    sample: bool,
    decimal: str = ".",
) -> list[TextColumn]:
    """The columns of ``relation``, all of them text, with their types.

    Args:
        connection: reads the relation.
        relation: a query.
        columns: the columns; those whose type was given keep it.
        sample: look at the first :data:`SAMPLE_ROWS` rows only; the types then keep a test for the others.
        decimal: the decimal mark.
    """
    rows = f"(SELECT * FROM ({relation}) LIMIT {SAMPLE_ROWS})" if sample else f"({relation})"
    open_ = [column for column in columns if not column.given]
    counts: dict[str, dict[str, Any]] = {}
    for start in range(0, len(open_), 100):  # a query of thousands of expressions takes long to plan
        part = open_[start : start + 100]
        measured = [
            f"{sql} AS {quote(f'{number} {key}')}"
            for number, column in enumerate(part)
            for key, sql in _measures(quote(column.name), decimal).items()
        ]
        if not measured:
            break
        values = connection.execute(f"SELECT {', '.join(measured)} FROM {rows}").fetchall()[0]
        keys = list(_measures("x", decimal))
        for number, column in enumerate(part):
            counts[column.name] = dict(
                zip(keys, values[number * len(keys) : (number + 1) * len(keys)], strict=True)
            )
    return [
        column
        if column.given
        else _decide(connection, rows, column, counts[column.name], sample=sample, decimal=decimal)
        for column in columns
    ]


def given(name: str, type_: str, decimal: str = ".") -> TextColumn:
    """A column whose type a person chose: each value must be equal to its text, however that is spelled."""
    return TextColumn(name, type_, _given_test(type_, decimal), given=True)


def respelled(
    connection: duckdb.DuckDBPyConnection, relation: str, column: TextColumn, decimal: str
) -> str | None:
    """What became of the spelling in a column whose type a person chose, as a sentence with a count."""
    x = quote(column.name)
    text = _number_text(x, decimal) if _is_number(column.type) else x
    value = f"CAST(TRY_CAST({text} AS {column.type}) AS VARCHAR)"
    whole = f"({value} || '.0' = {text} OR {value} = {text} || '.0')"  # 3 as 3.0
    where = f"{value} <> {text} AND NOT {whole}"
    count, example, stored = connection.execute(
        f"SELECT count(*), min({x}), arg_min({value}, {x}) FROM ({relation}) WHERE {where}"
    ).fetchall()[0]
    if not count:
        return None
    values = "1 value is" if count == 1 else f"{count:,} values are"
    told = f"{values} spelled otherwise, such as {example} as {stored}"
    return f"Column {column.name} is {column.type}: {told}."


def common_type(first: str, second: str, *, exact: bool) -> str | None:
    """The type that holds the values of both without loss; ``None`` for nested types that differ.

    Args:
        first: a DuckDB type.
        second: another one.
        exact: whether all whole numbers among them are small enough for a DOUBLE (2^53).
    """
    types = {first.upper(), second.upper()}
    if any(("(" in one and not one.startswith(("DECIMAL", "ENUM"))) or one.endswith("]") for one in types):
        return None
    integers = types & _INTEGER_TYPES
    if len(integers) == 2:
        return "BIGINT" if not any("HUGE" in one or one == "UBIGINT" for one in types) else "VARCHAR"
    if types <= {"FLOAT", "DOUBLE"} or (integers and exact and types & {"FLOAT", "DOUBLE"}):
        return "DOUBLE"
    if types <= {"DATE", "TIMESTAMP"}:
        return "TIMESTAMP"
    if '"NULL"' in types:
        return next(iter(types - {'"NULL"'}))
    return "VARCHAR"


def _is_number(type_: str) -> bool:
    plain = type_.upper().split("(")[0].strip()
    return plain in _INTEGER_TYPES | {"FLOAT", "DOUBLE", "REAL", "DECIMAL", "NUMERIC"}


def _number_text(x: str, decimal: str) -> str:
    """``x`` with a point for the decimal mark; what has a point already becomes no number."""
    return (
        x
        if decimal == "."
        else f"CASE WHEN contains({x}, '.') THEN {x} || '?' ELSE replace({x}, ',', '.') END"
    )


def _round_trip(x: str, type_: str) -> str:
    return f"(CAST(TRY_CAST({x} AS {type_}) AS VARCHAR) = {x})"


def _measures(x: str, decimal: str) -> dict[str, str]:
    """SQL of each figure that :func:`_decide` needs, over the column ``x``."""
    whole_text = x
    x = f"CASE WHEN strlen({x}) <= {_LONGEST_TYPED} THEN {x} END"  # texts are not looked at further
    n = _number_text(x, decimal)
    canonical, plain = _round_trip(n, "DOUBLE"), _plain(n)
    whole = f"regexp_full_match({n}, '{_INTEGER}')"
    number = f"({whole} OR {canonical} OR {plain})"
    scale = f"length({n}) - strpos({n}, '.')"
    stamp = f"(regexp_full_match({x}, '{_TIMESTAMP}') AND TRY_CAST({x} AS TIMESTAMP) IS NOT NULL)"
    date = _round_trip(x, "DATE")
    return {
        "values": f"count({whole_text})",
        "empty": f"count(*) FILTER ({x} = '')",
        "whole": f"count(*) FILTER ({_round_trip(x, 'BIGINT')})",
        "number": f"count(*) FILTER ({number})",
        "digits": f"count(*) FILTER (regexp_matches({x}, '[0-9]'))",
        "respelled": f"count(*) FILTER ({plain} AND NOT {canonical})",
        "example": f"min({x}) FILTER ({plain} AND NOT {canonical})",
        "least scale": f"min({scale}) FILTER ({plain})",
        "most scale": f"max({scale}) FILTER ({plain})",
        "other": f"min(left({whole_text}, 80)) FILTER ({whole_text} <> '' AND {number} IS NOT TRUE)",
        "true": f"count(*) FILTER ({x} IN ('true', 'false'))",
        "date": f"count(*) FILTER ({date})",
        "stamp": f"count(*) FILTER ({stamp} OR {_round_trip(x, 'TIMESTAMP')})",
        "moment": f"count(*) FILTER ({date} OR {stamp} OR {_round_trip(x, 'TIMESTAMP')})",
        "restamped": f"min({x}) FILTER ({stamp} AND {_round_trip(x, 'TIMESTAMP')} IS NOT TRUE)",
        "time": f"count(*) FILTER ({_round_trip(x, 'TIME')})",
    }


def _plain(n: str) -> str:
    """Whether ``n`` is a decimal number that a DOUBLE keeps: of 15 digits, or the same but for zeros."""
    same = f"rtrim(CAST(TRY_CAST({n} AS DOUBLE) AS VARCHAR), '0') = rtrim({n}, '0')"
    return f"(regexp_full_match({n}, '{_DECIMAL}') AND (length({n}) <= {_EXACT_DIGITS + 1} OR {same}))"


def _decide(
    connection: duckdb.DuckDBPyConnection,
    rows: str,
    column: TextColumn,
    counts: dict[str, Any],
    *,
    sample: bool,
    decimal: str,
) -> TextColumn:
    """The type of a column by what was counted of its values."""
    filled = counts["values"] - counts["empty"]
    if not filled or not (counts["digits"] or counts["true"]):
        return column
    typed = _by_counts(counts, filled)
    if typed == "VARCHAR":
        return replace(column, note=_kept_as_text(column.name, counts, filled))
    note = None
    test: str | None = _test(typed, counts, decimal)
    if typed == "DOUBLE" and counts["respelled"]:
        if counts["least scale"] != counts["most scale"]:
            x = quote(column.name)
            n = _number_text(x, decimal)
            spellings, numbers = connection.execute(
                f"SELECT count(DISTINCT {n}), count(DISTINCT TRY_CAST({n} AS DOUBLE)) FROM {rows} "
                f"WHERE contains({n}, '.')"
            ).fetchall()[0]
            if spellings != numbers:
                why = f"{counts['example']} and another spelling of the same number stand in it"
                return replace(column, note=_text_note(column.name, why, "DOUBLE"))
        shown = str(counts["example"])
        stored = float(shown.replace(",", ".") if decimal == "," else shown)
        note = (
            f"Column {column.name} is DOUBLE, which drops zeros at the end: {shown} is {stored}; "
            f"columns={{'{column.name}': 'VARCHAR'}} keeps the spelling."
        )
    if typed == "TIMESTAMP" and counts["restamped"]:
        shown = counts["restamped"]
        stored = shown.replace("T", " ")
        stored = stored.rstrip("0").rstrip(".") if "." in stored else stored
        note = f"Column {column.name} is TIMESTAMP, which writes {shown} as {stored}."
    if counts["empty"] and not sample:
        empty = counts["empty"]
        values = '1 empty text ("")' if empty == 1 else f'{empty:,} empty texts ("")'
        empties = f"Column {column.name} is {typed}: {values} became NULL."
        note = f"{note} {empties}" if note else empties
    return replace(column, type=typed, test=test if sample else None, note=note)


def _by_counts(counts: dict[str, Any], filled: int) -> str:
    for key, type_ in (
        ("whole", "BIGINT"),
        ("number", "DOUBLE"),
        ("true", "BOOLEAN"),
        ("date", "DATE"),
        ("moment", "TIMESTAMP"),
        ("time", "TIME"),
    ):
        if counts[key] == filled:
            return type_
    return "VARCHAR"


def _test(type_: str, counts: dict[str, Any], decimal: str) -> str:
    n = _number_text("{x}", decimal)
    match type_:
        case "DOUBLE" if counts["respelled"]:
            scale = counts["most scale"]
            if scale != counts["least scale"] or scale >= _EXACT_DIGITS:
                return "false"  # whether two spellings meet shows only when all rows are known
            before = _EXACT_DIGITS - 1 - scale
            return f"regexp_full_match({n}, '-?(0|[1-9][0-9]{{0,{before}}})(\\.[0-9]{{{scale}}})?')"
        case "DOUBLE":
            return f"({_round_trip(n, 'DOUBLE')} OR regexp_full_match({n}, '{_INTEGER}'))"
        case "BOOLEAN":
            return "{x} IN ('true', 'false')"
        case "TIMESTAMP" if not counts["restamped"]:
            return f"({_round_trip('{x}', 'DATE')} OR {_round_trip('{x}', 'TIMESTAMP')})"
        case "TIMESTAMP":
            stamp = f"(regexp_full_match({{x}}, '{_TIMESTAMP}') AND TRY_CAST({{x}} AS TIMESTAMP) IS NOT NULL)"
            return f"({stamp} OR {_round_trip('{x}', 'DATE')} OR {_round_trip('{x}', 'TIMESTAMP')})"
    return _round_trip("{x}", type_)


def _kept_as_text(name: str, counts: dict[str, Any], filled: int) -> str | None:
    """Why a column that is numbers nearly throughout is text; ``None`` for other columns."""
    if filled < 10 or counts["number"] < 0.9 * filled:
        return None
    why = f"{counts['other']!r} is not a number as it is spelled"
    return _text_note(name, why, "BIGINT" if counts["whole"] == counts["number"] else "DOUBLE")


def _text_note(name: str, why: str, type_: str) -> str:
    return f"Column {name} is text, because {why}; columns={{'{name}': '{type_}'}} makes numbers of it."


def _given_test(type_: str, decimal: str) -> str:
    """SQL that is true of texts, with ``{x}`` for one, that a chosen type holds without loss."""
    n = _number_text("{x}", decimal)
    plain = type_.upper().split("(")[0].strip()
    stored = f"CAST(TRY_CAST({{x}} AS {type_}) AS VARCHAR)"
    if "[" in type_ or plain in ("STRUCT", "MAP", "UNION"):
        return f"({digits('{x}')} = {digits(stored)})"
    if plain in _INTEGER_TYPES:
        form = "\\s*[+-]?[0-9]+(\\.0*)?\\s*"
        return f"(TRY_CAST({n} AS {type_}) IS NOT NULL AND regexp_full_match({n}, '{form}'))"
    if plain in ("DECIMAL", "NUMERIC"):
        given_scale = re.search(r"\(\s*\d+\s*,\s*(\d+)\s*\)", type_)
        scale = int(given_scale[1]) if given_scale else 0 if "(" in type_ else 3
        form = f"\\s*[+-]?[0-9]*(\\.[0-9]{{0,{scale}}}0*)?\\s*"
        return f"(TRY_CAST({n} AS {type_}) IS NOT NULL AND regexp_full_match({n}, '{form}'))"
    if plain in ("FLOAT", "REAL", "DOUBLE"):
        short = f"regexp_full_match({n}, '[^eE]{{0,{_FLOAT_DIGITS}}}')"
        kept = f"{digits(n)} = {digits(f'CAST(TRY_CAST({n} AS {type_}) AS VARCHAR)')}"
        return f"(TRY_CAST({n} AS {type_}) IS NOT NULL AND ({short} OR {kept}))"
    if plain in ("TIME", "TIMESTAMP"):
        return f"({digits('{x}')} = {digits(stored)})"
    if plain == "DATE":
        midnight = "CAST(TRY_CAST({x} AS TIMESTAMP) AS TIME) = TIME '00:00:00'"
        return f"(TRY_CAST({{x}} AS DATE) IS NOT NULL AND COALESCE({midnight}, true))"
    return f"TRY_CAST({{x}} AS {type_}) IS NOT NULL"


def digits(text: str) -> str:
    """SQL of the significant digits of each number in a text, zeros at both ends left out.

    Two spellings of the same numbers have the same ones; where a number was rounded, they differ.
    """
    numbers = f"regexp_extract_all({text}, '([0-9][0-9.]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?', 1)"
    return (
        f"list_filter(list_transform({numbers}, lambda n: trim(replace(n, '.', ''), '0')), lambda n: n <> '')"
    )


def text_literal_list(values: Sequence[str]) -> str:
    """An SQL list of texts."""
    return "[" + ", ".join(map(literal, values)) + "]"
