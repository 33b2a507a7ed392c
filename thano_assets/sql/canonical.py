"""The canonical text of a statement: what it says, whatever the way it was written.

Two statements with one canonical text make the same thing, so it serves as identity and goes into
fingerprints. It parses, and its own canonical text is itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thano_assets.errors import SyntaxProblem
from thano_assets.sql.base_names import is_media_base, is_media_model
from thano_assets.sql.grammar import CLAUSE_WORDS, RESERVED_WORDS
from thano_assets.sql.lexer import NUMBER, STRING, WORD, Token, tokenize
from thano_assets.sql.options import OPTION_SPECS, Options
from thano_assets.sql.source import Span
from thano_assets.sql.statements import (
    BuildModel,
    Convert,
    Copy,
    CreateTableAs,
    DeleteModel,
    DropExpect,
    DropTable,
    Evaluate,
    Expect,
    ExplainPredict,
    FitModel,
    GetThanosql,
    ListItems,
    ModelRef,
    Plan,
    Predict,
    PromoteModel,
    Query,
    QueryStatement,
    RebuildModel,
    Search,
    ShowCreate,
    ShowLineage,
    Statement,
    UploadModel,
)

_CHAMPION = "champion"


def canonical_statement(statement: Statement) -> str:
    """See :meth:`thano_assets.sql.statements.Statement.canonical`."""
    kind = statement.option_kind
    match statement:
        case QueryStatement():
            return canonical_query(statement.query)
        case Copy():
            content = statement.path if statement.path is not None else statement.rows_json
            return _join(
                "COPY", _table(statement.table), _options(statement.options), "FROM", _string(content or "")
            )
        case CreateTableAs(body=body):
            text = canonical_query(body) if isinstance(body, Query) else canonical_statement(body)
            return _join("CREATE TABLE", _table(statement.name), "AS", text)
        case DropTable():
            return _join("DROP TABLE", "IF EXISTS" if statement.if_exists else "", _table(statement.name))
        case BuildModel():
            base = _string(statement.base) if statement.base_quoted else identifier(statement.base)
            return _join(
                "BUILD MODEL",
                identifier(statement.name),
                "USING",
                base,
                *_as(statement.options, statement.query),
            )
        case FitModel():
            return _join(
                "FIT MODEL",
                identifier(statement.name),
                "USING",
                _model(statement.parent),
                *_as(statement.options, statement.query),
            )
        case Predict() | Evaluate() | Convert() | Search() | ExplainPredict():
            model = _model(statement.model)
            if isinstance(statement, (Convert, Search)) and is_media_model(model):
                model = f'"{model}"'  # without quotes it would be refused
            return _join(kind, "USING", model, *_as(statement.options, statement.query))
        case ListItems():
            return _join("LIST", statement.what)
        case GetThanosql():
            return _join(kind, identifier(statement.name), _options(statement.options))
        case UploadModel():
            return _join(
                kind, identifier(statement.name), _options(statement.options), "FROM", _string(statement.path)
            )
        case DeleteModel(version=version) | PromoteModel(version=version):
            return _join(
                kind, identifier(statement.name), f"VERSION {version}" if version is not None else ""
            )
        case RebuildModel(version=version):
            return _join(
                kind,
                identifier(statement.name),
                f"VERSION {version}" if version is not None else "",
                "VERIFY" if statement.verify else "",
            )
        case ShowLineage():
            return _join(kind, identifier(statement.name))
        case ShowCreate():
            table = statement.what == "TABLE"
            return _join(
                kind, statement.what, _table(statement.name) if table else identifier(statement.name)
            )
        case Expect():
            return _join(
                "EXPECT", _tokens(statement.source, statement.condition_span), "ON", _table(statement.table)
            )
        case DropExpect(condition_span=span):
            condition = "" if span is None else _tokens(statement.source, span)
            return _join("DROP EXPECT", condition, "ON", _table(statement.table))
        case Plan():
            return _join("PLAN", canonical_statement(statement.statement))
    name = getattr(statement, "name", None)
    return _join(kind, "OF MODEL", identifier(name)) if name is not None else kind


def canonical_query(query: Query) -> str:
    """The tokens of a query with one blank between; words in lower case, strings and quoted names unchanged.

    Parentheses around the whole are left out; a nested statement stands in its own canonical text.
    """
    parts: list[str] = []
    position = query.span.start
    for nested in query.nested:
        parts.extend(_words(query.source, Span(position, nested.span.start)))
        parts.append(f"({canonical_statement(nested.statement)})")
        position = nested.span.end
    parts.extend(_words(query.source, Span(position, query.span.end)))
    return " ".join(_without_parentheses(parts))


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


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _table(name: str) -> str:
    # DuckDB finds tables whatever the case of their names.
    return identifier(name.lower())


def _model(model: ModelRef) -> str:
    version = f" VERSION {model.version}" if model.version is not None else ""
    # The plain name is the champion.
    alias = f"@{identifier(model.alias)}" if model.alias and model.alias.lower() != _CHAMPION else ""
    return identifier(model.name) + version + alias


def _as(options: Options, query: Query) -> tuple[str, ...]:
    return _options(options), "AS", canonical_query(query)


def _options(options: Options) -> str:
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
        return _string(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_string(key)}: {value_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    return repr(value)


def _string(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _tokens(source: str, span: Span) -> str:
    return " ".join(_words(source, span))


def _words(source: str, span: Span) -> list[str]:
    words: list[str] = []
    before: Token | None = None
    text = span.slice(source)
    for token in tokenize(text):
        if before is not None and _continues(before, token, text):
            words[-1] = words[-1][:-1] + token.text[1:]
            before = token
            continue
        words.append(_word(token))
        before = token
    return words


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


def _without_parentheses(parts: list[str]) -> list[str]:
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
