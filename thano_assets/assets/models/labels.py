"""Labels compared as SQL compares them: 0, 0.0 and false are one label, whatever the types of their columns.

A model keeps its classes as text with the DuckDB type that they had in training. A value of another type is
the class that SQL's ``=`` finds equal to it, never the one whose text looks the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from thano_assets.assets.predictions.prediction_cache import has_text
from thano_assets.resources.warehouse import literal

_INTEGERS = "U?(?:TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)"
_KINDS = (
    ("number", re.compile(rf"{_INTEGERS}|FLOAT|DOUBLE|DECIMAL\(.*\)")),
    ("boolean", re.compile("BOOLEAN")),
    ("time", re.compile(r"DATE|TIMESTAMP(?:_S|_MS|_NS)?")),
    ("text", re.compile(r"VARCHAR|ENUM\(.*\)|UUID|", re.DOTALL)),
)


def present_label(value: str, type_: str, *, numbers: bool = False) -> str:
    """SQL for a label, NULL where it is missing: NULL, NaN, blank text, infinities among ``numbers``.

    Args:
        value: SQL of the label.
        type_: its DuckDB type.
        numbers: whether a number is learnt from it, instead of a class.
    """
    if numbers:
        return f"CASE WHEN isfinite(CAST({value} AS DOUBLE)) THEN CAST({value} AS DOUBLE) END"
    if type_ == "VARCHAR":
        return f"CASE WHEN {has_text(value)} THEN {value} END"
    return f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END" if type_ in ("FLOAT", "DOUBLE") else value


def missing_words(name: str, type_: str) -> tuple[str, str]:
    """What a missing label of a column is, and how to leave such rows out."""
    if type_ in ("FLOAT", "DOUBLE"):
        return "NULL or NaN", f"Leave them out with WHERE isfinite({name})."
    if type_ == "VARCHAR":
        return "NULL or blank text", f"Leave them out with WHERE trim({name}) <> ''."
    return "NULL", f"Leave them out with WHERE {name} IS NOT NULL."


def class_of(value: str, type_: str, classes: Sequence[str], class_type: str) -> str:
    """SQL for the class that a value equals; the value's own text where it equals none, NULL where missing.

    Args:
        value: SQL of the value.
        type_: its DuckDB type.
        classes: the classes, as text.
        class_type: the type that they had in training.
    """
    value = present_label(value, type_)
    text = f"CAST({value} AS VARCHAR)"
    if type_ == class_type or not classes:
        return text
    names = f"[{', '.join(map(literal, classes))}]"
    ours, theirs = _kind(class_type), _kind(type_)
    match ours, theirs:
        case "number", "number":
            place = f"list_position(CAST({names} AS {class_type}[]), {value})"
        case "number", "boolean":
            place = f"list_position(CAST({names} AS {class_type}[]), CAST({value} AS TINYINT))"
        case "boolean", "number":
            place = f"list_position(CAST(CAST({names} AS BOOLEAN[]) AS TINYINT[]), {value})"
        case "time", "time":
            stamps = f"CAST(CAST({names} AS {class_type}[]) AS TIMESTAMP[])"
            place = f"list_position({stamps}, CAST({value} AS TIMESTAMP))"
        case (("number" | "boolean"), "text"):
            common = "DOUBLE" if ours == "number" else "BOOLEAN"
            place = f"list_position(CAST({names} AS {common}[]), TRY_CAST({text} AS {common}))"
        case "text", ("number" | "boolean"):
            common = "DOUBLE" if theirs == "number" else "BOOLEAN"
            tried = ", ".join(f"TRY_CAST({literal(name)} AS {common})" for name in classes)
            place = f"list_position([{tried}], CAST({value} AS {common}))"
        case _:
            return text
    found = f"({names})[{place}]"
    if "text" in (ours, theirs):  # a text that is a class is that class, whatever number it could be
        found = f"coalesce(({names})[list_position({names}, {text})], {found})"
    return f"coalesce({found}, {text})"


def classes_of(labels: Iterable[str], type_: str, classes: Sequence[str], class_type: str) -> dict[str, str]:
    """The class that each label equals; a label that equals none stands for itself.

    Args:
        labels: labels as text.
        type_: the DuckDB type that they have.
        classes: the classes, as text.
        class_type: the type that those have.
    """
    wanted = list(dict.fromkeys(labels))
    if type_ == class_type or set(wanted) <= set(classes):
        return {label: label for label in wanted}
    import duckdb

    listed = ", ".join(f"({literal(label)})" for label in wanted)
    found = class_of(f"CAST(label AS {type_ or 'VARCHAR'})", type_, classes, class_type)
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT label, {found} FROM (VALUES {listed}) v(label)").fetchall()
    # What equals no class keeps its own text, not the text that another type would give it.
    return {label: name if name in classes else label for label, name in rows}


def _kind(type_: str) -> str:
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(type_)), "other")
