"""What an option is: its name, its type, the values that are legal, and how one is checked."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from thano_assets.errors import InvalidOption, UnsupportedStatement
from thano_assets.sql.cron import cron_problem
from thano_assets.sql.grammar import MEDIA_REFUSAL

OptionType = Literal[
    "text",
    "column",
    "columns",
    "integer",
    "number",
    "boolean",
    "choice",
    "integers",
    "cron",
    "mark",
    "texts",
    "types",
    "encoding",
]

_TYPE_WORDS: dict[OptionType, str] = {
    "text": "text in quotes",
    "column": "the name of a column",
    "columns": "a list of names of columns",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "True or False",
    "choice": "one of a list",
    "integers": "a list of whole numbers",
    "mark": "one or a few characters in quotes ('\\t' is a tab)",
    "texts": "a text in quotes or a list of them",
    "types": "{'column': 'TYPE'}, or a list of names for the columns",
    "encoding": "an encoding that Python knows, such as 'cp949' or 'windows-1252'",
    "cron": "a cron expression of five fields, such as '0 3 * * 1', or @hourly, @daily, @weekly, "
    "@monthly or @yearly",
}


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """One option of one kind of statement.

    Attributes:
        name: the canonical name.
        type: what kind of value it takes.
        doc: one sentence for the reference and ``--help``.
        default: what counts when it is not given. ``None`` is always also a legal value then, and
            means that the engine decides (see ``doc``).
        aliases: other spellings.
        choices: the legal values of a ``choice``.
        minimum: smallest legal number (of each element, for a list).
        maximum: largest legal number.
        above: the number must be larger than this.
        below: the number must be smaller than this.
        length: the number of elements that a list must have.
        available: whether the engine acts on it already; the session refuses the others, which are known
            and checked all the same.
        nullable: whether ``None`` is a value of its own, though the default is another.
        refused: values of a ``choice`` that ThanoSQL has, for models that are not served.
        pattern: what a text, or each of several, has to match.
        form: ``pattern`` in words.
        identity: whether it says what the statement makes. Those that only say what to do with what exists
            already (``overwrite``, ``if_exists``) are left out of the canonical text.
    """

    name: str
    type: OptionType
    doc: str
    default: Any = None
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    length: int | None = None
    available: bool = True
    identity: bool = True
    nullable: bool = False
    refused: tuple[str, ...] = ()
    pattern: str = ""
    form: str = ""

    @property
    def allowed(self) -> str:
        """What the option accepts, in words: ``a whole number of at least 1``."""
        if self.type == "choice":
            text = " or ".join(f"'{choice}'" for choice in self.choices)
        elif self.form:
            text = self.form
        else:
            text = _TYPE_WORDS[self.type]
            if self.length is not None:
                text = text.replace("a list of", f"a list of {self.length}", 1)
            text += self._range()
        return text + (" (or None)" if self.default is None or self.nullable else "")

    def _range(self) -> str:
        bounds = []
        if self.minimum is not None and self.maximum is not None:
            return f" from {self.minimum:.10g} to {self.maximum:.10g}"
        if self.minimum is not None:
            bounds.append(f"of at least {self.minimum:.10g}")
        if self.above is not None:
            bounds.append(f"above {self.above:.10g}")
        if self.maximum is not None:
            bounds.append(f"at most {self.maximum:.10g}")
        if self.below is not None:
            bounds.append(f"below {self.below:.10g}")
        return " " + " and ".join(bounds) if bounds else ""

    def check(self, value: Any, statement: str) -> Any:
        """The value in the option's own type (lists become tuples).

        Raises:
            InvalidOption: the value has another type or is out of range; the error has no place yet.
            UnsupportedStatement: a value for models that are not served.
        """
        if value is None and (self.default is None or self.nullable):
            return None
        problem = InvalidOption(
            f"Option {self.name} of {statement} was given {_shown(value)}.",
            hint=f"Allowed is {self.allowed}.",
        )
        match self.type:
            case "boolean":
                if isinstance(value, bool):
                    return value
            case "text" | "column":
                if _is_name(value) and self._matches(value):
                    return value
            case "cron":
                if isinstance(value, str):
                    reason = cron_problem(value)
                    if reason is None:
                        return " ".join(value.split())
                    problem.message = f"Option {self.name} of {statement}: {reason}."
            case "choice":
                if isinstance(value, str) and value.strip().casefold() in self.refused:
                    raise UnsupportedStatement(
                        f"{self.name}='{value}' is for models of images, audio or video.", hint=MEDIA_REFUSAL
                    )
                if isinstance(value, str):
                    for choice in self.choices:
                        if choice.casefold() == value.strip().casefold():
                            return choice
                    close = _closest(value, self.choices)
                    if close:
                        problem.hint = f"Did you mean '{close}'? {problem.hint}"
            case "integer":
                if type(value) is int and self._in_range(value):
                    return value
            case "number":
                if type(value) in (int, float) and self._in_range(value):
                    return float(value)
            case "columns":
                if isinstance(value, (list, tuple)) and value and all(map(_is_name, value)):
                    return tuple(value)
            case "integers":
                if isinstance(value, (list, tuple)) and self._holds_integers(value):
                    return tuple(value)
            case "mark":
                if isinstance(value, str):
                    mark = value.replace("\\t", "\t")
                    if (
                        0 < len(mark.encode()) <= 4
                        and "\n" not in mark
                        and "\r" not in mark
                        and "\0" not in mark
                    ):
                        return mark
            case "texts":
                texts = [value] if isinstance(value, str) else value
                if isinstance(texts, (list, tuple)) and texts and all(map(self._matches, texts)):
                    return tuple(texts)
            case "types":
                return self._checked_types(value, statement, problem)
            case "encoding":
                if isinstance(value, str) and is_encoding(value):
                    return value
        raise problem

    def _checked_types(self, value: Any, statement: str, problem: InvalidOption) -> Any:
        """Types of columns by their names, or the names alone."""
        if isinstance(value, Mapping) and value and all(map(_is_name, (*value, *value.values()))):
            for name, type_ in value.items():
                if not is_type(type_):
                    raise InvalidOption(
                        f"Option {self.name} of {statement} gives {name} the type '{type_}', which "
                        "DuckDB does not know.",
                        hint=f"Allowed is {self.allowed}; types are VARCHAR, BIGINT, DOUBLE and others.",
                    )
            return FrozenMapping({name: _one_case(type_.strip()) for name, type_ in value.items()})
        if isinstance(value, (list, tuple)) and value and all(map(_is_name, value)):
            folded = [name.casefold() for name in value]
            if len(set(folded)) < len(folded):
                problem.hint = f"Each column needs a name of its own. {problem.hint}"
                raise problem
            return tuple(value)
        raise problem

    def _holds_integers(self, values: Sequence[Any]) -> bool:
        whole = all(type(item) is int and self._in_range(item) for item in values)
        return whole and (self.length is None or len(values) == self.length)

    def _matches(self, value: Any) -> bool:
        """Whether ``value`` is a text of the option's form."""
        return isinstance(value, str) and (not self.pattern or bool(re.fullmatch(self.pattern, value)))

    def _in_range(self, number: float) -> bool:
        return (
            number == number  # not NaN
            and abs(number) != float("inf")
            and (self.minimum is None or number >= self.minimum)
            and (self.maximum is None or number <= self.maximum)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )


class FrozenMapping(Mapping[str, str]):
    """Texts by texts, in the order given; equal and hashable by what it holds."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, str]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> str:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


def is_encoding(name: str) -> bool:
    """Whether Python knows an encoding of texts by that name."""
    try:
        "".encode(codecs.lookup(name).name)
    except (LookupError, ValueError, UnicodeError):
        return False
    return True


def is_type(name: str) -> bool:
    """Whether DuckDB has a type of that name."""
    import duckdb

    if not re.fullmatch(r"[\w\s(),\[\]\"']+", name):
        return False
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SELECT CAST(NULL AS {name})")
    except duckdb.Error:
        return False
    return True


def _one_case(type_: str) -> str:
    """A type in upper case, unless names of fields or values stand in it."""
    return type_.upper() if re.fullmatch(r"[\w ]+(\([\d, ]*\))?(\[\d*\])*", type_) else type_


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _shown(value: Any) -> str:
    """A value as a person would write it in OPTIONS."""
    if isinstance(value, str):
        shown = value if len(value) <= 60 else f"{value[:59]}…"
        return f"the text '{shown}'" if value.strip() else "an empty text"
    if isinstance(value, (list, tuple)):
        return "the list [" + ", ".join(str(item) for item in value) + "]"
    return str(value)


def _closest(value: str, choices: tuple[str, ...]) -> str | None:
    folded = value.casefold()
    for choice in choices:
        if SequenceMatcher(None, folded, choice).ratio() >= 0.6:
            return choice
    return None
