"""How a person says that a file is to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ReadOptions:
    """What COPY was told about its files; ``None`` leaves a thing to be found from the file itself.

    Attributes:
        types: DuckDB types of columns, by the columns' names.
        names: Names of all columns, in the file's order.
        all_text: Every column is VARCHAR.
        encoding: A name that Python's codecs know.
        delimiter: Between the values of a row.
        quote: Around a value; the empty text where quotes are characters like others.
        escape: Before a quote inside a quoted value.
        header: Whether the first row holds the names of the columns.
        skip: Lines, or rows of a sheet, to leave out before that.
        comment: What a line begins with that is to be left out.
        null: Spellings that mean NULL.
        decimal: The decimal mark, ``.`` or ``,``.
        sheet: Name of a workbook's sheet.
        max_line_size: Bytes of the longest row.
    """

    types: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    all_text: bool = False
    encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    header: bool | None = None
    skip: int | None = None
    comment: str | None = None
    null: tuple[str, ...] | None = None
    decimal: str = "."
    sheet: str | None = None
    max_line_size: int | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ReadOptions:
        """From the options that a COPY was given, by their names."""
        given = {name: options[name] for name in cls.__dataclass_fields__ if name in options}
        columns = options.get("columns")
        if isinstance(columns, Mapping):
            given["types"] = dict(columns)
        elif columns is not None:
            given["names"] = tuple(columns)
        if "quote" in options:
            given["quote"] = options["quote"] or ""
        return cls(**given)

    def type_of(self, column: str) -> str | None:
        """The type that ``column`` was given, its name in any case."""
        for name, kind in self.types.items():
            if name.casefold() == column.casefold():
                return kind
        return None
