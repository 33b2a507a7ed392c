"""A query of DuckDB's SQL, kept as it was written, with the statements nested in it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thano_assets.sql.canonical import (
    without_parentheses,
    words,
)
from thano_assets.sql.source import Span

if TYPE_CHECKING:
    from thano_assets.sql.statements import Statement


@dataclass(frozen=True)
class Nested:
    """A statement in parentheses inside a query; ``span`` covers the parentheses too."""

    span: Span
    statement: Statement


@dataclass(frozen=True)
class Rendered:
    """A query's text for DuckDB, nested statements replaced by relations.

    Attributes:
        text: what DuckDB gets.
        pieces: for each piece of ``text``: its start in ``text``, its start in the source, and whether its
            characters stand one to one for those of the source (else all of it stands for that one place).
    """

    text: str
    pieces: tuple[tuple[int, int, bool], ...] = field(repr=False)

    def to_source(self, offset: int) -> int:
        """The offset in the user's text that a 0-based character offset of ``text`` came from."""
        starts = [piece[0] for piece in self.pieces]
        start, origin, verbatim = self.pieces[max(0, bisect_right(starts, offset) - 1)]
        return origin + max(0, offset - start) if verbatim else origin


@dataclass(frozen=True)
class Query:
    """A query of DuckDB's SQL, kept as it was written, with the statements nested in it."""

    source: str = field(repr=False)
    span: Span
    nested: tuple[Nested, ...] = ()

    @property
    def text(self) -> str:
        """The query as it was written, nested statements included."""
        return self.span.slice(self.source)

    def render(self, names: Sequence[str] = ()) -> Rendered:
        """The query with each nested statement replaced by ``(FROM "name")``.

        Args:
            names: one relation for each of ``nested``, in order; quoted here.

        Raises:
            ValueError: another number of names than of nested statements.
        """
        if len(names) != len(self.nested):
            raise ValueError(f"{len(self.nested)} names are needed, {len(names)} were given")
        parts: list[str] = []
        pieces: list[tuple[int, int, bool]] = []
        length = 0
        position = self.span.start
        for name, nested in zip(names, self.nested, strict=True):
            for start, end, text in (
                (position, nested.span.start, None),
                (nested.span.start, nested.span.end, '(FROM "' + name.replace('"', '""') + '")'),
            ):
                part = self.source[start:end] if text is None else text
                if part:
                    pieces.append((length, start, text is None))
                    parts.append(part)
                    length += len(part)
            position = nested.span.end
        rest = self.source[position : self.span.end]
        if rest or not pieces:
            pieces.append((length, position, True))
            parts.append(rest)
        return Rendered("".join(parts), tuple(pieces))

    def canonical(self) -> str:
        """The tokens with one blank between; words in lower case, strings and quoted names unchanged.

        Parentheses around the whole are left out; a nested statement stands in its own canonical text.
        """
        parts: list[str] = []
        position = self.span.start
        for nested in self.nested:
            parts.extend(words(self.source, Span(position, nested.span.start)))
            parts.append(f"({nested.statement.canonical()})")
            position = nested.span.end
        parts.extend(words(self.source, Span(position, self.span.end)))
        return " ".join(without_parentheses(parts))
