"""Places in the user's text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range ``[start, end)`` of 0-based character offsets into the text given to ``parse``."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def slice(self, source: str) -> str:
        """The characters of ``source`` that the span covers."""
        return source[self.start : self.end]
