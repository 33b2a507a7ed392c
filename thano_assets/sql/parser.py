"""Tokens to statements, by recursive descent; queries go to DuckDB's own parser."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from thano_assets.errors import SyntaxProblem, UnsupportedStatement, nearest
from thano_assets.sql.catalog_statements import CatalogReader
from thano_assets.sql.grammar import (
    FIRST_WORDS,
    MEDIA_REFUSAL,
    MEDIA_WORDS,
    QUERY_WORDS,
    REFUSED_WORDS,
    syntax_of,
)
from thano_assets.sql.lexer import WORD, Token
from thano_assets.sql.model_statements import ModelReader
from thano_assets.sql.options import Options
from thano_assets.sql.source import Span
from thano_assets.sql.statements import MODEL_QUERIES, DeleteModel, Plan, Search, Statement
from thano_assets.sql.table_statements import TableReader

_DEPTH_LIMIT = 60


def parse(text: str) -> list[Statement]:
    """The statements of ``text``, in order; none for white space and comments alone.

    Args:
        text: statements separated by ``;``.

    Raises:
        SyntaxProblem: the text is not of the language; says what was expected where.
        UnsupportedStatement: a statement that is recognised and not served.
        UnknownOption, InvalidOption: in ``OPTIONS (…)``.
    """
    parser = _Parser(text)
    statements = []
    for first, end in parser.statement_ranges():
        parser.position, parser.end = first, end
        statements.append(parser.statement())
    return statements


class _Parser(ModelReader, TableReader, CatalogReader):
    """Finds out what a statement is; the readers read it."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.depth = 0
        self._readers: dict[str, Callable[[], Statement]] = {
            "BUILD": self.build_model,
            "FIT": self.fit_model,
            **{kind: partial(self.model_query, kind) for kind in MODEL_QUERIES},
            "SEARCH": self._search,
            "LIST": self.list_items,
            "GET": self.get_thanosql,
            "UPLOAD": self.upload_model,
            "COPY": self.copy,
            "CREATE": self.create_table,
            "DROP": self.drop,
            "DELETE": self._delete,
            "SHOW": self.show,
            "PLAN": self._plan,
            "EXPLAIN": self._explain,
            "PROMOTE": self.promote_model,
            "REBUILD": self.rebuild_model,
            "EXPECT": self.expectation,
            "PRINT": self._print,
            "FUNCTION": self._function,
        }

    def statement_ranges(self) -> list[tuple[int, int]]:
        """Token ranges between the ``;`` of the text, empty ones left out."""
        ranges = []
        first = 0
        for index, token in enumerate(self.tokens):
            if token.upper == ";":
                if index > first:
                    ranges.append((first, index))
                first = index + 1
        if first < len(self.tokens):
            ranges.append((first, len(self.tokens)))
        return ranges

    def statement(self) -> Statement:
        """The statement from the cursor's position to its end."""
        token = self.peek()
        if token is None:
            raise self.expected("a statement", "PLAN")
        self.depth += 1
        if self.depth > _DEPTH_LIMIT:
            raise self.problem(f"Statements are nested more than {_DEPTH_LIMIT} deep.", token)
        try:
            if (
                token.upper == "("
                and self.closing[self.position] == self.end - 1
                and self.is_wrapped(self.position)
            ):
                self.position, self.end = self.position + 1, self.end - 1
                return self.statement()
            reader = self._readers.get(token.upper)
            if reader is not None:
                return reader()
            if token.upper in QUERY_WORDS or token.upper == "(":
                return self.query_statement()
            raise self._unknown_start(token)
        finally:
            self.depth -= 1

    def nested_statement(self, first: int, end: int) -> Statement:
        saved = self.position, self.end
        self.position, self.end = first, end
        try:
            return self.statement()
        finally:
            self.position, self.end = saved

    def _unknown_start(self, token: Token) -> SyntaxProblem | UnsupportedStatement:
        if token.upper in REFUSED_WORDS:
            return UnsupportedStatement(
                f"{token.upper} is not a statement of this engine.", hint=REFUSED_WORDS[token.upper]
            ).at(self.source, token.start, len(token.text))
        if token.upper in ("%", "%%"):
            return self.problem(
                f"{token.text} begins a notebook command, not a statement.",
                token,
                hint="Leave that line out.",
            )
        close = nearest(token.text, FIRST_WORDS, 1) if token.kind is WORD else []
        if close:
            kind = FIRST_WORDS[close[0]]
            hint = f"Did you mean {close[0]}?" if kind == "QUERY" else f"Did you mean: {syntax_of(kind)}"
        else:
            known = [
                word
                for word in FIRST_WORDS
                if word not in ("WITH", "FROM", "VALUES", "SUMMARIZE", "DESCRIBE")
            ]
            hint = f"Statements begin with one of: {', '.join(known)}."
        shown = f'"{token.text}"' if token.kind is WORD else token.text
        return self.problem(f"Expected a statement here, not {shown}.", token, hint=hint)

    def _plan(self) -> Plan:
        first = self.position
        self.position += 1
        if self.sees("PLAN"):
            raise self.expected("a statement", "PLAN")
        inner = self.statement()
        span = Span(self.tokens[first].start, inner.span.end)
        return Plan(source=self.source, span=span, options=Options("PLAN"), statement=inner)

    def _explain(self) -> Statement:
        following = self.peek(1)
        if following is None:
            self.position += 1
            raise self.expected("a statement", "PLAN")
        if (kind := f"EXPLAIN {following.upper}") in MODEL_QUERIES:
            return self.model_query(kind)
        if following.upper in self._readers and following.upper not in ("SHOW", "EXPLAIN"):
            return self._plan()
        if following.upper in REFUSED_WORDS and following.upper != "ANALYZE":
            self.position += 1
            raise self._unknown_start(following)
        return self.query_statement()

    def _delete(self) -> DeleteModel:
        if self.sees("DELETE", "FROM"):
            raise self._unknown_start(self.tokens[self.position])
        return self.delete_model()

    def _search(self) -> Search:
        following = self.peek(1)
        if following is not None and following.upper in MEDIA_WORDS:
            raise self._media(f"SEARCH {following.upper}", 2)
        return self.search()

    def _print(self) -> Statement:
        following = self.peek(1)
        if following is not None and following.upper in MEDIA_WORDS:
            raise self._media(f"PRINT {following.upper}", 2)
        raise self._media("PRINT", 1)

    def _function(self) -> Statement:
        raise self._media("FUNCTION", 1)

    def _media(self, what: str, words: int) -> UnsupportedStatement:
        last = min(self.position + words, self.end)
        place = self.span(self.position, last)
        return UnsupportedStatement(f"{what} is not served.", hint=MEDIA_REFUSAL).at(
            self.source, place.start, len(place)
        )
