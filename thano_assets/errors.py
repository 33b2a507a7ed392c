"""Errors that a person can act on.

Every error that the engine raises for something in the user's text, data or workspace is a
:class:`ThanoError`: one sentence about what was wrong, a stable ``code`` to test for, the place
in the text where it was found, and a hint that says what to do. Anything else that escapes is a
defect of the engine.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from typing import Any, ClassVar, Self

_SHORT_LIST = 12
_CONTEXT_WIDTH = 100


class ThanoError(Exception):
    """Base of all errors that are told to the user as a sentence.

    Args:
        message: one sentence about the user's own text or data.
        line: 1-based line of ``text`` where the problem stands, if known.
        column: 1-based column (in characters, not bytes) on that line, if known.
        hint: what to do about it.
        text: the whole text that the user gave; ``line`` and ``column`` count in it.
        length: how many characters the caret line underlines, at least 1.
        code: a stable name for the kind of error; by default that of the class.

    Attributes:
        file: the script that ``text`` is, where it is one.
    """

    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        line: int | None = None,
        column: int | None = None,
        hint: str | None = None,
        text: str | None = None,
        length: int = 1,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.hint = hint
        self.text = text
        self.length = max(1, length)
        self.code = code or self.default_code
        self.file: str | None = None

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors travel from a run's process to the one that asked, with their place.
        state = {key: value for key, value in self.__dict__.items() if key != "message"}
        return type(self), (self.message,), state

    def at(self, text: str, offset: int, length: int = 1) -> Self:
        """Fill in the place from a 0-based ``offset`` into ``text``, unless it is already known."""
        if self.line is None:
            self.text = text
            self.line, self.column = line_and_column(text, offset)
            self.length = max(1, length)
        return self

    def as_json(self) -> dict[str, Any]:
        """The error for a program, by the names of its parts."""
        known = self.line is not None
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "length": self.length if known else None,
        }

    def pretty(self) -> str:
        """The sentence and, where the place is known, the source line with a caret line under it."""
        if self.text is None or self.line is None or self.column is None:
            return str(self)
        lines = split_lines(self.text)
        if not 1 <= self.line <= len(lines):
            return str(self)
        source = lines[self.line - 1]
        start = min(self.column - 1, len(source))
        length = max(1, min(self.length, len(source) - start))
        cut = 0
        if len(source) > _CONTEXT_WIDTH:
            cut = min(max(0, start - _CONTEXT_WIDTH // 2), max(0, len(source) - _CONTEXT_WIDTH))
        shown = source[cut : cut + _CONTEXT_WIDTH]
        length = min(length, max(1, len(shown) - (start - cut)))
        label = f"line {self.line}: "
        lead = "…" if cut else ""
        tail = "…" if cut + _CONTEXT_WIDTH < len(source) else ""
        pad = _blank(label + lead + shown[: start - cut])
        caret = "^" * max(1, _width(shown[start - cut : start - cut + length]))
        return f"{self}\n{label}{lead}{shown}{tail}\n{pad}{caret}"


class SyntaxProblem(ThanoError):  # noqa: N818 - SyntaxError is Python's own
    """The text is not a statement of the language."""

    default_code = "syntax"


class UnknownVariable(ThanoError):  # noqa: N818
    """A variable of a statement that has no value."""

    default_code = "unknown-variable"


class UnsupportedStatement(ThanoError):  # noqa: N818
    """A statement that is understood, and that this engine does not serve."""

    default_code = "unsupported-statement"


class UnknownOption(ThanoError):  # noqa: N818
    """An option that the statement does not have."""

    default_code = "unknown-option"


class InvalidOption(ThanoError):  # noqa: N818
    """An option with a value of the wrong type or out of range, or given twice."""

    default_code = "invalid-option"


class UnknownTable(ThanoError):  # noqa: N818
    """A table that does not exist."""

    default_code = "unknown-table"


class UnknownColumn(ThanoError):  # noqa: N818
    """A column that the query does not give."""

    default_code = "unknown-column"


class UnknownModel(ThanoError):  # noqa: N818
    """A model, version or alias that is not in the registry."""

    default_code = "unknown-model"


class UnknownBaseModel(ThanoError):  # noqa: N818
    """A base model that is neither in the catalogue nor a folder nor a hub name."""

    default_code = "unknown-base-model"


class UnknownToken(ThanoError):  # noqa: N818
    """An access token that is not there."""

    default_code = "unknown-token"


class UnknownTemplate(ThanoError):  # noqa: N818
    """A query template that is not there."""

    default_code = "unknown-template"


class TemplateProblem(ThanoError):  # noqa: N818
    """A query template that cannot be read, or whose parameters are not given."""

    default_code = "template"


class PermissionRefused(ThanoError):  # noqa: N818
    """What an access token is not good for."""

    default_code = "permission"


class TimeOver(ThanoError):  # noqa: N818
    """A statement of a request that took longer than a request may take."""

    default_code = "time-over"


class UnknownFile(ThanoError):  # noqa: N818
    """A file of the data folder that is not there."""

    default_code = "unknown-file"


class UnknownSchema(ThanoError):  # noqa: N818
    """A schema that is not there."""

    default_code = "unknown-schema"


class UnknownRun(ThanoError):  # noqa: N818
    """A run of the server that is not there."""

    default_code = "unknown-run"


class UnknownDataset(ThanoError):  # noqa: N818
    """A data set that GET THANOSQL DATASET does not know."""

    default_code = "unknown-dataset"


class ChampionKept(ThanoError):  # noqa: N818
    """A version that answers, which is never deleted by itself."""

    default_code = "champion"


class NameExists(ThanoError):  # noqa: N818
    """A table or model of that name exists, and overwriting was not asked for."""

    default_code = "name-exists"


class BorrowedAsset(ThanoError):  # noqa: N818
    """Something that an environment only borrows from production, and so cannot change."""

    default_code = "borrowed"

    @classmethod
    def of(cls, what: str) -> Self:
        """The refusal to change ``what``, such as ``table reviews``."""
        return cls(
            f"The {what} is production's; this environment only borrows it.",
            hint="Make it here to have an own one, or change it in production, without --env.",
        )


class TrainingDataError(ThanoError):
    """Rows that no classifier can be trained on; the sentence carries the counts."""

    default_code = "training-data"


class TrainingStopped(ThanoError):  # noqa: N818
    """A training that ended before its time in another process."""

    default_code = "training-stopped"


class DeviceMemory(ThanoError):  # noqa: N818
    """What a model computes with does not fit into a GPU's memory, however little is computed at a time."""

    default_code = "device-memory"


class ColumnTypeError(ThanoError):
    """A column whose type does not fit its use."""

    default_code = "column-type"


class BaseModelUnavailable(ThanoError):  # noqa: N818
    """A known base model whose weights cannot be had now; says each source tried and why it failed."""

    default_code = "base-model-unavailable"


class PathRefused(ThanoError):  # noqa: N818
    """A path outside the folders that the workspace allows."""

    default_code = "path-refused"


class DataFileError(ThanoError):
    """A data file that is missing, empty, malformed or of an unknown format."""

    default_code = "data-file"


class ResultError(ThanoError):
    """Rows that cannot be written as was asked."""

    default_code = "result"


class QueryError(ThanoError):
    """DuckDB's own complaint about a query, located in the user's text."""

    default_code = "query"


class WorkspaceError(ThanoError):
    """A workspace folder or setting that cannot be used."""

    default_code = "workspace"


class WarehouseBusy(ThanoError):  # noqa: N818
    """Another program holds the warehouse file."""

    default_code = "warehouse-busy"


class ExpectationFailed(ThanoError):  # noqa: N818
    """Rows of a table break an EXPECT, so nothing is made from the table."""

    default_code = "expectation"


class UnknownExpectation(ThanoError):  # noqa: N818
    """An expectation that no EXPECT statement has stated."""

    default_code = "unknown-expectation"


class RunFailed(ThanoError):  # noqa: N818
    """A run ended without its asset; carries the cause."""

    default_code = "run-failed"


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """1-based line and column of a 0-based character ``offset``; an offset past the end means the end.

    ``\\r\\n``, ``\\n`` and a lone ``\\r`` each end one line.
    """
    before = text[: max(0, min(offset, len(text)))]
    if before.endswith("\r") and text[len(before) : len(before) + 1] == "\n":
        before = before[:-1]
    lines = split_lines(before)
    return len(lines), len(lines[-1]) + 1


def split_lines(text: str) -> list[str]:
    """The lines of ``text`` without their ends; never empty.

    Unlike ``str.splitlines`` this does not break at form feeds or Unicode separators, which editors
    do not count as lines.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def nearest(name: str, candidates: Iterable[str], n: int = 3) -> list[str]:
    """Up to ``n`` of ``candidates`` that ``name`` may be a misspelling of, best first, whatever the case."""
    by_folded: dict[str, str] = {}
    for candidate in candidates:
        by_folded.setdefault(candidate.casefold(), candidate)
    folded = name.casefold()
    close = difflib.get_close_matches(folded, by_folded, n=n, cutoff=0.6)
    if len(folded) >= 3 and len(close) < n:
        starts = sorted(key for key in by_folded if key.startswith(folded) and key not in close)
        close.extend(starts[: n - len(close)])
    return [by_folded[key] for key in close]


def did_you_mean(name: str, candidates: Iterable[str], what: str) -> str:
    """A hint: the nearest of ``candidates`` and, when there are few, all of them.

    Args:
        name: what the user wrote.
        candidates: the names that exist.
        what: the plural noun for them, such as ``"tables"`` or ``"options of PREDICT"``.
    """
    known = sorted(set(candidates), key=str.casefold)
    if not known:
        return f"There are no {what} yet."
    close = nearest(name, known)
    parts = [f"Did you mean {' or '.join(close)}?"] if close else []
    if len(known) <= _SHORT_LIST or what.startswith("options"):
        parts.append(f"The {what} are: {', '.join(known)}.")
    elif not close:
        parts.append(f"There are {len(known)} {what}, none with a name like it.")
    return " ".join(parts)


def _width(text: str) -> int:
    """Columns that ``text`` takes in a terminal: wide East Asian characters take two."""
    return sum(char_width(char) for char in text)


def char_width(char: str) -> int:
    """Columns that a character takes in a terminal: 0, 1 or 2."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _blank(text: str) -> str:
    """White space as wide as ``text``, tabs kept so that a terminal sets them alike."""
    return "".join("\t" if char == "\t" else " " * char_width(char) for char in text)
