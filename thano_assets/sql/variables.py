"""Variables of statements: ``$name`` stands for a value, wherever a value may stand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from thano_assets.errors import InvalidOption, UnknownVariable, did_you_mean
from thano_assets.sql.canonical import string_text
from thano_assets.sql.lexer import PARAMETER, Token, tokenize

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None}


def names_in(text: str) -> list[str]:
    """The names of the variables in ``text``, each once, in their order."""
    return list(dict.fromkeys(token.text[1:] for token in _variables(text)))


def with_values(text: str, values: Mapping[str, Any]) -> str:
    """``text`` with the value of each variable in its place, as a literal.

    A value is one token of the language, whatever characters it has: it cannot end a statement or begin one.
    The statement keeps it, so a table that is made with another value is another table.

    Args:
        text: Statements.
        values: By name: text, number, truth value, date, ``None``, or a list of these.

    Raises:
        UnknownVariable: a variable without a value.
        InvalidOption: a value of a type that no literal stands for.
    """
    parts, position = [], 0
    for token in _variables(text):
        name = token.text[1:]
        if name not in values:
            hint = did_you_mean(name, sorted(values), "variables") if values else None
            raise UnknownVariable(
                f"The variable ${name} has no value.",
                hint=hint or f"--set {name}=… gives one; in Python, session.execute(text, {{'{name}': …}}).",
            ).at(text, token.start, len(token.text))
        try:
            literal = literal_text(values[name])
        except TypeError as error:
            raise InvalidOption(f"The variable ${name} is {error}.").at(
                text, token.start, len(token.text)
            ) from None
        parts += [text[position : token.start], _apart(literal, text[: token.start], text[token.end :])]
        position = token.end
    return "".join([*parts, text[position:]])


def _apart(literal: str, before: str, after: str) -> str:
    """A literal that forms one token with nothing beside it: ``5-$n`` with -3 must not begin a comment."""
    if after.startswith(("::", ".", "[")):  # a cast binds tighter than the sign of a number
        literal = f"({literal})"
    left = "" if not before or before[-1] in " \t\r\n(,=[{:;" else " "
    right = "" if not after or after[0] in " \t\r\n),]}:;.[" else " "
    return f"{left}{literal}{right}"


def literal_text(value: Any) -> str:
    """A value as it stands in a statement.

    Raises:
        TypeError: no literal stands for it; says what it is.
    """
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).upper()
        case str():
            return string_text(value)
        case int() | Decimal() if not isinstance(value, Decimal) or value.is_finite():
            return str(value)
        case float() if math.isfinite(value):
            text = repr(value)
            return text if "e" in text else f"{text}e0"  # without an exponent it would be a DECIMAL
        case float() | Decimal():
            return f"CAST('{value}' AS DOUBLE)"
        case datetime():
            return (
                f"CAST('{value.isoformat(' ')}' AS {'TIMESTAMP' if value.tzinfo is None else 'TIMESTAMPTZ'})"
            )
        case date():
            return f"CAST('{value.isoformat()}' AS DATE)"
        case list() | tuple():
            return f"[{', '.join(map(literal_text, value))}]"
    if callable(scalar := getattr(value, "item", None)):  # of NumPy and its like
        try:
            return literal_text(scalar())
        except ValueError:
            pass
    raise TypeError(f"a {type(value).__name__}; a text, number, date or list can be given")


def read_value(text: str) -> Any:
    """A value as it is given on a command line: a number, true, false, null, or else a text.

    Quotes around it make it a text in any case.
    """
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.casefold() in _WORDS:
        return _WORDS[text.casefold()]
    if _NUMBER.fullmatch(text):
        number = Decimal(text)
        return int(number) if re.fullmatch(r"[+-]?\d+", text) else number
    return text


def _variables(text: str) -> list[Token]:
    if "$" not in text:
        return []
    return [token for token in tokenize(text) if token.kind is PARAMETER and token.text.startswith("$")]
