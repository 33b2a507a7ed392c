"""Reading statements on tables: those that fill, make and drop them, and what is expected of their rows."""

from __future__ import annotations

from thano_assets.errors import InvalidOption, UnsupportedStatement, nearest
from thano_assets.sql.grammar import syntax_of
from thano_assets.sql.lexer import WORD, Token
from thano_assets.sql.options import Options
from thano_assets.sql.queries import QueryReader, starts_nestable
from thano_assets.sql.query import Query
from thano_assets.sql.source import Span
from thano_assets.sql.statements import Copy, CreateTableAs, DropExpect, DropTable, Expect, ModelQuery


class TableReader(QueryReader):
    """The part of the parser that reads statements on tables."""

    def copy(self) -> Copy:
        """``COPY … FROM …``."""
        kind = "COPY"
        first = self.position
        self.position += 1
        if self.sees("("):
            raise self._copy_out(self.tokens[first])
        table, table_span = self.table(kind)
        options = self.options(kind)
        if self.sees("TO"):
            raise self._copy_out(self.tokens[self.position])
        if not self.sees("FROM"):
            raise self.expected("FROM" if options else "OPTIONS (…) or FROM", kind)
        self.position += 1
        content, source_span = self.path(kind)
        if self.sees("(") or self.sees("WITH"):
            raise self.expected(
                "OPTIONS (…) or the end of the statement (;)",
                kind,
                hint=f"The format is found from the file itself. The statement is: {syntax_of(kind)}",
            )
        options = self.options(kind, options)
        self.expect_end(kind, before="OPTIONS (…) or " if not options else "")
        head = content.lstrip()
        is_rows = head.startswith("[") and head[1:].lstrip()[:1] in ("{", "]")
        if is_rows and options.get("watch"):
            place = options.place("watch")
            raise InvalidOption(
                "Rows that stand in the statement cannot change, so there is nothing to watch.",
                hint="watch=True goes with a path; leave it out here.",
            ).at(self.source, place.start, len(place))
        return Copy(
            table=table,
            table_span=table_span,
            path=None if is_rows else content,
            rows_json=content if is_rows else None,
            source_span=source_span,
            **self.finish(first, options),
        )

    def _copy_out(self, token: Token) -> UnsupportedStatement:
        return UnsupportedStatement(
            "COPY brings files in, it does not write them.",
            hint='Write a result with: thano sql "SELECT …" --format csv (or parquet, json).',
        ).at(self.source, token.start, len(token.text))

    def create_table(self) -> CreateTableAs:
        """``CREATE TABLE … AS …``."""
        kind = "CREATE TABLE AS"
        first = self.position
        self.position += 1
        or_replace = self.accept("OR", "REPLACE")
        token = self.peek()
        if token is not None and token.kind is WORD and token.upper not in ("TABLE", "MODEL"):
            close = nearest(token.text, ["TABLE", "MODEL", "VIEW"], 1)
            if token.upper == "VIEW" or not close or close == ["VIEW"]:
                raise UnsupportedStatement(
                    f"CREATE {token.upper} is not a statement of this engine.",
                    hint=f"What can be created is a table: {syntax_of(kind)}",
                ).at(self.source, token.start, len(token.text))
        if self.sees("MODEL"):
            raise self.problem(
                "A model is built, not created.",
                self.tokens[self.position],
                hint=f"Did you mean: {syntax_of('BUILD MODEL')}",
            )
        self.expect("TABLE", kind)
        if_not_exists = self.accept("IF", "NOT", "EXISTS")
        name, name_span = self.table(kind)
        if self.sees("("):
            raise UnsupportedStatement(
                "A table without rows cannot be created.",
                hint=f"A table here is what its statement says: CREATE OR REPLACE TABLE {name} AS SELECT …",
            ).at(self.source, self.tokens[self.position].start)
        self.expect("AS", kind)
        body = self._body(kind)
        return CreateTableAs(
            source=self.source,
            span=self.span(first, self.end),
            options=Options(kind),
            name=name,
            name_span=name_span,
            or_replace=or_replace,
            if_not_exists=if_not_exists,
            body=body,
        )

    def _body(self, kind: str) -> Query | ModelQuery:
        first, end = self.position, self.end
        while (
            first < end
            and self.sees_at(first, "(")
            and self.closing[first] == end - 1
            and self.is_wrapped(first)
        ):
            first, end = first + 1, end - 1
        if starts_nestable(self, first) and not self.sees_at(first, "LIST"):
            body = self.nested_statement(first, end)
            assert isinstance(body, ModelQuery)
            return body
        return self.query(kind)

    def drop(self) -> DropTable | DropExpect:
        """``DROP TABLE …`` or ``DROP EXPECT …``."""
        kind = "DROP TABLE"
        first = self.position
        self.position += 1
        if self.accept("EXPECT"):
            return self._drop_expect(first)
        if self.sees("MODEL"):
            raise self.problem(
                "A model is deleted, not dropped.",
                self.tokens[self.position],
                hint=f"Did you mean: {syntax_of('DELETE MODEL')}",
            )
        self.expect("TABLE", kind)
        if_exists = self.accept("IF", "EXISTS")
        name, name_span = self.table(kind)
        common = self.finish(first, Options(kind))
        return DropTable(name=name, name_span=name_span, if_exists=if_exists, **common)

    def _drop_expect(self, first: int) -> DropExpect:
        kind = "DROP EXPECT"
        condition_span, table, table_span = self._condition_on_table(kind)
        return DropExpect(
            condition_span=condition_span,
            table=table,
            table_span=table_span,
            **self.finish(first, Options(kind)),
        )

    def expectation(self) -> Expect:
        """``EXPECT condition ON …``."""
        kind = "EXPECT"
        first = self.position
        self.position += 1
        condition_span, table, table_span = self._condition_on_table(kind)
        common = self.finish(first, Options(kind))
        if condition_span is None:
            self.position = first + 1
            raise self.expected("a condition", kind)
        return Expect(condition_span=condition_span, table=table, table_span=table_span, **common)

    def _condition_on_table(self, kind: str) -> tuple[Span | None, str, Span]:
        """Step over ``[condition] ON table``; the last ``ON`` outside parentheses ends the condition."""
        start = self.position
        on = None
        index = start
        while index < self.end:
            if self.tokens[index].upper == "ON":
                on = index
            index = self.closing.get(index, index) + 1
        if on is None:
            self.position = self.end
            raise self.expected("ON", kind)
        condition_span = self.span(start, on) if on > start else None
        if condition_span is not None:
            self.check_expression(condition_span)
        self.position = on + 1
        return condition_span, *self.table(kind)
