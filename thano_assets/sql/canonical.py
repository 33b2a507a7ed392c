"""The parts of canonical texts, see :meth:`.Statement.canonical`: names, options, strings and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thano_assets.errors import SyntaxProblem
from thano_assets.sql.base_names import is_media_base
from thano_assets.sql.grammar import CLAUSE_WORDS, RESERVED_WORDS
from thano_assets.sql.lexer import NUMBER, STRING, WORD, Token, tokenize
from thano_assets.sql.options import OPTION_SPECS, Options
from thano_assets.sql.source import Span


def identifier(name: str) -> str:
    """``name`` as it must be written to be read as one name: in double quotes where it has to be."""
    try:
        tokens = tokenize(name)
    except SyntaxProblem:
        tokens = []
    plain = len(tokens) == 1 and tokens[0].kind is WORD and tokens[0].text == name
    if (
        plain
        and name.upper() not in RESERVED_WORDS
        and name.upper() not in CLAUSE_WORDS
        and not is_media_base(name)
    ):
        return name
    return '"' + name.replace('"', '""') + '"'


def join(*parts: str) -> str:
    """The parts that are not empty, with one blank between."""
    return " ".join(part for part in parts if part)


def table_name(name: str) -> str:
    """``name`` as a table; DuckDB finds tables whatever the case of their names."""
    return identifier(name.lower())


def options_text(options: Options) -> str:
    """OPTIONS with those that say what is made and differ from the default, in order; nothing without any."""
    specs = OPTION_SPECS.get(options.kind, {})
    said = [
        f"{name} = {value_text(value)}"
        for name, value in sorted(options.items())
        if specs[name].identity and value != specs[name].default
    ]
    return f"OPTIONS ({', '.join(said)})" if said else ""


def option_text(name: str, value: Any) -> str:
    """An option as it stands in a statement."""
    return f"{name}={value_text(value)}"


def value_text(value: Any) -> str:
    """A value of an option as it stands in a statement."""
    if isinstance(value, str):
        return string_text(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{string_text(key)}: {value_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    return repr(value)


def string_text(text: str) -> str:
    """``text`` in single quotes."""
    return "'" + text.replace("'", "''") + "'"


def tokens_text(source: str, span: Span) -> str:
    """The tokens there with one blank between."""
    return " ".join(words(source, span))


def words(source: str, span: Span) -> list[str]:
    """The tokens there: words in lower case, strings and quoted names unchanged."""
    found: list[str] = []
    before: Token | None = None
    text = span.slice(source)
    for token in tokenize(text):
        if before is not None and _continues(before, token, text):
            found[-1] = found[-1][:-1] + token.text[1:]
            before = token
            continue
        found.append(_word(token))
        before = token
    return found


def _word(token: Token) -> str:
    if token.kind is WORD or token.kind is NUMBER:
        return token.text.lower()
    if token.kind is STRING and token.text[0] in "EeXxBb":
        return token.text[0].lower() + token.text[1:]
    return token.text


def _continues(before: Token, token: Token, text: str) -> bool:
    """Whether two strings are one to DuckDB: those with a line's end and no comment between them."""
    if (
        before.kind is not STRING
        or token.kind is not STRING
        or token.text[0] != "'"
        or before.text[-1] != "'"
    ):
        return False
    between = text[before.end : token.start]
    return "\n" in between and not between.strip()


def without_parentheses(parts: list[str]) -> list[str]:
    """The parts without the parentheses that stand around all of them."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    for index, part in enumerate(parts):
        if part == "(":
            opened.append(index)
        elif part == ")" and opened:
            closing[opened.pop()] = index
    first, last = 0, len(parts) - 1
    while last - first > 1 and closing.get(first) == last:
        first, last = first + 1, last - 1
    return parts[first : last + 1]
