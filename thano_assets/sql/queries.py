"""Queries inside the text: where they end, what is nested in them, and DuckDB's judgement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from difflib import SequenceMatcher

from thano_assets.errors import SyntaxProblem, ThanoError, UnsupportedStatement
from thano_assets.sql.cursor import Cursor
from thano_assets.sql.grammar import (
    CLAUSES,
    MEDIA_WORDS,
    QUERY_WORDS,
    REFUSED_WORDS,
    RESERVED_WORDS,
    syntax_of,
)
from thano_assets.sql.judge import Complaint, statement_kinds
from thano_assets.sql.lexer import OPERATOR, QUOTED, WORD, Token
from thano_assets.sql.options import Options
from thano_assets.sql.query import Nested, Query, Rendered
from thano_assets.sql.reads import after_explain, tables_read
from thano_assets.sql.source import Span
from thano_assets.sql.statements import MODEL_QUERIES, QueryStatement, Statement

_NESTABLE = (
    *((*kind.split(), "USING")[:2] for kind in MODEL_QUERIES if kind != "SEARCH"),
    ("SEARCH", "TEXT"),
    ("SEARCH", "KEYWORD"),
    ("LIST", "MODEL"),
    ("LIST", "TABLE"),
    ("LIST", "THANOSQL"),
)
_STANDALONE = (
    ("BUILD", "MODEL"),
    ("FIT", "MODEL"),
    ("DELETE", "MODEL"),
    ("UPLOAD", "MODEL"),
    ("PROMOTE", "MODEL"),
    ("REBUILD", "MODEL"),
    ("GET", "THANOSQL"),
    ("CREATE", "TABLE"),
    ("CREATE", "OR"),
    ("DROP", "TABLE"),
)
_WRITING = (
    ("INSERT", "INTO"),
    ("INSERT", "OR"),
    ("DELETE", "FROM"),
    ("MERGE", "INTO"),
)
#: First words of what :data:`_NESTABLE` and :data:`_STANDALONE` list: looked at before the lists.
_FIRST_OF_STATEMENTS = frozenset(words[0] for words in (*_NESTABLE, *_STANDALONE)) | {"OPTIONS"}


def starts_nestable(cursor: Cursor, index: int) -> bool:
    """Whether a statement that may stand in a query begins at token ``index``."""
    first = cursor.tokens[index].upper if index < len(cursor.tokens) else ""
    return first in _FIRST_OF_STATEMENTS and any(cursor.sees_at(index, *words) for words in _NESTABLE)


def starts_media(cursor: Cursor, index: int) -> bool:
    """Whether a statement on images, audio or video begins at token ``index``."""
    if index >= len(cursor.tokens) or cursor.tokens[index].upper not in ("SEARCH", "PRINT"):
        return False
    return any(cursor.sees_at(index + 1, what) for what in MEDIA_WORDS)


class QueryReader(Cursor, ABC):
    """The part of the parser that reads queries."""

    @abstractmethod
    def nested_statement(self, first: int, end: int) -> Statement:
        """The statement in the token range, with the cursor left where it was."""

    def query_statement(self) -> QueryStatement:
        """A query that is a statement of its own."""
        first = self.position
        query = self.query("QUERY", explain=True)
        return QueryStatement(query=query, **self.finish(first, Options("QUERY")))

    def query(self, kind: str, *, explain: bool = False) -> Query:
        """The query from the cursor to the end of the statement, judged by DuckDB.

        Args:
            kind: the statement that it belongs to, for the error's hint.
            explain: whether ``EXPLAIN query`` is a query here.
        """
        first, end = self.position, self.end
        if first >= end:
            raise self.expected("a query", kind)
        if starts_nestable(self, first) or starts_media(self, first):
            nested = Nested(self.span(first, end), self.nested_statement(first, end))
            self.position = end
            return Query(self.source, nested.span, (nested,))
        token = self.tokens[first]
        if token.upper == "EXPLAIN" and explain:
            token = self._explained(first, end)
        if token.upper == "EXPLAIN" or (token.upper not in QUERY_WORDS and token.upper != "("):
            self.position = self.tokens.index(token, first)
            raise self._not_a_query(token, kind)
        query = Query(self.source, self.span(first, end), tuple(self._nested(first, end)))
        self._judge(query, first, end, kind)
        if query.nested:
            self._check_visible(query, first, end)
        self.position = end
        return query

    def is_wrapped(self, opening: int) -> bool:
        """Whether a ThanoSQL statement follows the ``(`` at this index, further ``(`` between or not."""
        index = opening
        while self.sees_at(index, "("):
            index += 1
        inner = self.tokens[index - 1 : index]
        return (
            bool(inner)
            and (starts_nestable(self, index) or starts_media(self, index))
            and all(
                self.closing[outer] == self.closing[opening] - (outer - opening)
                for outer in range(opening, index)
            )
        )

    def _explained(self, first: int, end: int) -> Token:
        index = first + after_explain(self.tokens[first:end])
        if index >= end:
            self.position = end
            raise self.expected("a query", "PLAN")
        return self.tokens[index]

    def _not_a_query(self, token: Token, kind: str) -> ThanoError:
        if token.upper in REFUSED_WORDS:
            return UnsupportedStatement(f"{token.upper} is not a query.", hint=REFUSED_WORDS[token.upper]).at(
                self.source, token.start, len(token.text)
            )
        problem = self.expected("a query", kind)
        close = _misspelt(token)
        if close:
            problem.hint = f"Did you mean {close}? {problem.hint}"
        elif any(self.sees_at(self.position, *words) for words in _STANDALONE) or token.upper == "COPY":
            problem.hint = (
                f"{token.upper} is a statement of its own; a query begins with SELECT, FROM or WITH."
            )
        return problem

    def _nested(self, first: int, end: int) -> list[Nested]:
        found = []
        index = first
        while index < end:
            if self.tokens[index].upper != "(":
                index += 1
                continue
            close = self.closing[index]
            if starts_nestable(self, index + 1) or starts_media(self, index + 1):
                found.append(Nested(self.span(index, close + 1), self.nested_statement(index + 1, close)))
                index = close + 1
                continue
            self._refuse_inside(index + 1)
            index += 1
        return found

    def _refuse_inside(self, index: int) -> None:
        token = self.tokens[index]
        for words in _STANDALONE if token.upper in _FIRST_OF_STATEMENTS else ():
            if self.sees_at(index, *words):
                raise self.problem(
                    f"{' '.join(words)} cannot stand inside a query.",
                    token,
                    hint="Run it as a statement of its own, before the query that needs it.",
                )
        writes = any(self.sees_at(index, *words) for words in _WRITING)
        # A CTE's body may be any statement to DuckDB, one that writes files among them.
        writes = writes or (
            token.upper in ("COPY", "UPDATE", "INSERT", "DELETE", "TRUNCATE", "MERGE")
            and self._defined_name(index - 1) is not None
        )
        if writes or (token.upper == "UPDATE" and self.sees_at(index + 2, "SET")):
            raise UnsupportedStatement(
                f"{token.upper} cannot stand inside a query.",
                hint=REFUSED_WORDS.get(
                    token.upper, "A query reads; what it gives can be written by -o FILE."
                ),
            ).at(self.source, token.start, len(token.text))

    def _judge(self, query: Query, first: int, end: int, kind: str) -> None:
        rendered = query.render([f"nested_{number}" for number in range(len(query.nested))])
        verdict = statement_kinds(rendered.text)
        if isinstance(verdict, Complaint):
            raise self._query_problem(verdict, rendered, first, end, kind)
        # MULTI is how DuckDB runs a PIVOT whose columns it must first look up.
        for found in verdict:
            if found not in ("SELECT", "MULTI", "EXPLAIN"):
                place = next((t for t in self.tokens[first:end] if t.upper == found), self.tokens[first])
                raise UnsupportedStatement(f"{found} is not a query.", hint=REFUSED_WORDS.get(found)).at(
                    self.source, place.start, len(place.text)
                )

    def _check_visible(self, query: Query, first: int, end: int) -> None:
        """Refuse a nested statement that reads a name which WITH defines around it.

        The statement is carried out before the query, on its own, so it cannot see that name.
        """
        defined = list(self._definitions(query, first, end))
        for nested in query.nested if defined else ():
            start = nested.span.start
            names = {
                name.casefold()
                for name, since, until in defined
                if since <= start and (until is None or start < until)
            }
            for table, offset in _tables_of(nested.statement):
                if table.casefold() in names:
                    raise SyntaxProblem(
                        f"{table} is defined by WITH outside these parentheses and cannot be seen in them.",
                        hint=f"Define it inside ({nested.statement.kind} … AS WITH {table} AS (…) SELECT …) "
                        f"or make it a table first (CREATE TABLE {table} AS …).",
                    ).at(self.source, offset, len(table))

    def _definitions(self, query: Query, first: int, end: int) -> Iterator[tuple[str, int, int | None]]:
        """The names that ``WITH`` defines in a query, and the offsets from and to which each can be seen."""
        around: list[int] = []
        index = first
        replaced = {nested.span.start: nested.span.end for nested in query.nested}
        while index < end:
            token = self.tokens[index]
            while around and self.closing[around[-1]] < index:
                around.pop()
            if token.upper == "(":
                name = self._defined_name(index)
                if name is not None:
                    until = self.tokens[self.closing[around[-1]]].start if around else None
                    yield name, self.tokens[self.closing[index]].end, until
                if token.start in replaced:
                    index = self.closing[index] + 1
                    continue
                around.append(index)
            index += 1

    def _defined_name(self, opening: int) -> str | None:
        """The name in ``WITH name [(columns)] AS [[NOT] MATERIALIZED] (`` before this ``(``."""
        index = opening - 1
        for word in ("MATERIALIZED", "NOT"):
            if index > 0 and self.tokens[index].upper == word:
                index -= 1
        if index < 2 or self.tokens[index].upper != "AS":
            return None
        index -= 1
        if self.tokens[index].upper == ")":
            index = self.opening[index] - 1
        before = self.tokens[index - 1].upper if index > 0 else ""
        token = self.tokens[index]
        named = token.kind in (WORD, QUOTED) and before in ("WITH", "RECURSIVE", ",")
        return token.value if named else None

    def check_expression(self, span: Span) -> None:
        """Ask DuckDB whether the text of ``span`` is an expression."""
        before = "SELECT ("
        verdict = statement_kinds(f"{before}{span.slice(self.source)}\n)")
        if isinstance(verdict, Complaint):
            offset = min(max(span.start, span.start + verdict.offset - len(before)), span.end - 1)
            raise SyntaxProblem(
                f"The condition is not a valid expression: {verdict.message}.",
                hint=f"The statement is: {syntax_of('EXPECT')}",
            ).at(self.source, offset, min(verdict.length, span.end - offset))

    # Saying what DuckDB objects to

    def _query_problem(
        self, complaint: Complaint, rendered: Rendered, first: int, end: int, kind: str
    ) -> SyntaxProblem:
        offset = rendered.to_source(complaint.offset)
        index = next((i for i in range(first, end) if self.tokens[i].end > offset), end - 1)
        token = self.tokens[index]
        misspelt = self._misspelt_before(index, first)
        if misspelt is not None:
            token = self.tokens[misspelt[0]]
        if not complaint.message.startswith("syntax error"):
            message = f"DuckDB cannot read this query: {complaint.message.rstrip('.')}."
        elif misspelt is None and index == end - 1 and _wants_more(token):
            message = f"The query ends too early, after {token.text}."
        else:
            message = f'The query is not valid SQL at or near "{token.text}".'
        hint = self._query_hint(index, first, end, kind)
        if misspelt is not None and hint is None:
            hint = f'Did you mean {misspelt[1]} instead of "{token.text}"?'
        hint = hint or "Queries follow DuckDB's SQL."
        return SyntaxProblem(message, hint=hint).at(self.source, token.start, token.end - token.start)

    def _misspelt_before(self, index: int, first: int) -> tuple[int, str] | None:
        """The nearest word at or shortly before a token that is probably meant as a clause; that clause."""
        for k in range(index, max(first - 1, index - 4), -1):
            close = _misspelt(self.tokens[k])
            if close:
                return k, close
        return None

    def _query_hint(self, index: int, first: int, end: int, kind: str) -> str | None:
        for k in range(first + 1, end):
            word = self.tokens[k].upper
            if word not in _FIRST_OF_STATEMENTS:
                continue
            if self.sees_at(k, "OPTIONS", "(") and kind != "QUERY":
                return f"OPTIONS (…) stands before AS. The statement is: {syntax_of(kind)}"
            words = next((w for w in (*_NESTABLE, *_STANDALONE) if self.sees_at(k, *w)), None)
            if words is None or self.tokens[k - 1].upper == "(":
                continue
            if words in _NESTABLE and self.tokens[k - 1].upper in ("FROM", "JOIN", ","):
                return f"Put the statement that begins with {' '.join(words)} in parentheses."
            return f"Is a ; missing before {' '.join(words)}?"
        if self.tokens[index].upper == "COPY":
            return "Is a ; missing before COPY?"
        return None


def _tables_of(statement: Statement) -> Iterator[tuple[str, int]]:
    """The tables that a nested statement reads, at any depth, and their offsets in the source."""
    query = getattr(statement, "query", None)
    if not isinstance(query, Query):
        return
    # A name that no one can have written stands for what is nested further in.
    rendered = query.render(["\x01"] * len(query.nested))
    for table in tables_read(rendered.text).tables:
        if table.name != "\x01":
            yield table.name, rendered.to_source(table.offset)
    for nested in query.nested:
        yield from _tables_of(nested.statement)


def _wants_more(token: Token) -> bool:
    if token.kind is OPERATOR:
        return token.text not in (")", "]", "}", "*")
    return token.kind is WORD and token.upper in RESERVED_WORDS


def _misspelt(token: Token) -> str | None:
    """The clause that a word is probably meant to be."""
    if (
        token.kind is not WORD
        or len(token.text) < 3
        or token.upper in CLAUSES
        or token.upper in RESERVED_WORDS
    ):
        return None
    best = max(CLAUSES, key=lambda clause: SequenceMatcher(None, token.upper, clause).ratio())
    return best if SequenceMatcher(None, token.upper, best).ratio() >= 0.75 else None
