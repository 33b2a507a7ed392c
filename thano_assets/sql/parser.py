"""Tokens to statements, by recursive descent; queries go to DuckDB's own parser."""

from __future__ import annotations

from collections.abc import Callable

from thano_assets.errors import (
    InvalidOption,
    SyntaxProblem,
    UnknownBaseModel,
    UnsupportedStatement,
    nearest,
)
from thano_assets.sql.base_names import TABLE_BASES, build_kind, is_media_base
from thano_assets.sql.cursor import Cursor
from thano_assets.sql.grammar import (
    FIRST_WORDS,
    MEDIA_REFUSAL,
    QUERY_WORDS,
    REFUSED_WORDS,
    syntax_of,
)
from thano_assets.sql.lexer import QUOTED, STRING, WORD, Token
from thano_assets.sql.options import Options
from thano_assets.sql.queries import QueryReader, starts_media, starts_nestable
from thano_assets.sql.source import Span
from thano_assets.sql.statements import (
    Body,
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
    ShowRuns,
    ShowTraining,
    ShowVersions,
    Statement,
    UploadModel,
)

_MEDIA = ("IMAGE", "AUDIO", "VIDEO")
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


class _Parser(QueryReader, Cursor):
    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.depth = 0
        self._readers: dict[str, Callable[[], Statement]] = {
            "BUILD": self._build_model,
            "FIT": self._fit_model,
            "PREDICT": self._predict,
            "EVALUATE": self._evaluate,
            "CONVERT": self._convert,
            "SEARCH": self._search,
            "LIST": self._list,
            "GET": self._get,
            "UPLOAD": self._upload,
            "COPY": self._copy,
            "CREATE": self._create,
            "DROP": self._drop,
            "DELETE": self._delete,
            "SHOW": self._show,
            "PLAN": self._plan,
            "EXPLAIN": self._explain,
            "PROMOTE": self._promote,
            "REBUILD": self._rebuild,
            "EXPECT": self._expect_statement,
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

    # Statements

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
                return self._query_statement()
            raise self._unknown_start(token)
        finally:
            self.depth -= 1

    def nested_statement(self, first: int, end: int) -> Statement:
        """The statement in the token range, with the cursor left where it was."""
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

    def _query_statement(self) -> QueryStatement:
        first = self.position
        query = self.query("QUERY", explain=True)
        return QueryStatement(
            source=self.source, span=self.span(first, self.end), options=Options("QUERY"), query=query
        )

    def _finish(self, first: int, options: Options) -> dict[str, object]:
        self.expect_end(options.kind)
        return {"source": self.source, "span": self.span(first, self.position), "options": options}

    def _build_model(self) -> BuildModel:
        kind = "BUILD MODEL"
        first = self.position
        self.expect("BUILD", kind)
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        self.expect("USING", kind)
        token = self.peek()
        if token is not None and token.kind is STRING and token.value.strip():
            base, base_span = token.value, Span(token.start, token.end)
            self.position += 1
        else:
            base, base_span = self.name("the name of a base model", kind)
        base_quoted = self.tokens[self.position - 1].kind in (STRING, QUOTED)
        if not base_quoted and is_media_base(base):
            raise UnsupportedStatement(
                f"{base} is not a base model for text.",
                hint=f"{MEDIA_REFUSAL} LIST THANOSQL MODEL shows those it has.",
            ).at(self.source, base_span.start, len(base_span))
        meant = next((name for name in TABLE_BASES if name.casefold() == base.casefold()), base)
        if meant != base and not base_quoted:  # its options would be looked up among those of texts
            raise UnknownBaseModel(f"There is no base model {base}.", hint=f"Did you mean {meant}?").at(
                self.source, base_span.start, len(base_span)
            )
        kind = build_kind(base)
        options = self.options(kind)
        query = self._as_query(kind, options)
        return BuildModel(
            source=self.source,
            span=self.span(first, self.end),
            options=options,
            name=name,
            name_span=name_span,
            base=base,
            base_span=base_span,
            base_quoted=base_quoted,
            query=query,
        )

    def _fit_model(self) -> FitModel:
        kind = "FIT MODEL"
        first = self.position
        self.expect("FIT", kind)
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        self.expect("USING", kind)
        parent = self.model_reference(kind)
        options = self.options(kind)
        query = self._as_query(kind, options)
        return FitModel(
            source=self.source,
            span=self.span(first, self.end),
            options=options,
            name=name,
            name_span=name_span,
            parent=parent,
            query=query,
        )

    def _as_query(self, kind: str, options: Options) -> Query:
        if not self.sees("AS"):
            raise self.expected("AS" if options else "OPTIONS (…) or AS", kind)
        self.position += 1
        return self.query(kind)

    def _using(self, kind: str, *words: str) -> tuple[int, ModelRef, Options, Query]:
        first = self.position
        for word in words:
            self.expect(word, kind)
        self.expect("USING", kind)
        model = self.model_reference(kind)
        if (
            not model.quoted
            and kind not in ("PREDICT", "EXPLAIN PREDICT", "EVALUATE")
            and is_media_base(model.name)
        ):
            raise UnsupportedStatement(f"{model.name} is not a model for text.", hint=MEDIA_REFUSAL).at(
                self.source, model.span.start, len(model.span)
            )
        options = self.options(kind)
        return first, model, options, self._as_query(kind, options)

    def _predict(self) -> Predict:
        first, model, options, query = self._using("PREDICT", "PREDICT")
        span = self.span(first, self.end)
        return Predict(source=self.source, span=span, options=options, model=model, query=query)

    def _evaluate(self) -> Evaluate:
        first, model, options, query = self._using("EVALUATE", "EVALUATE")
        span = self.span(first, self.end)
        return Evaluate(source=self.source, span=span, options=options, model=model, query=query)

    def _convert(self) -> Convert:
        first, model, options, query = self._using("CONVERT", "CONVERT")
        span = self.span(first, self.end)
        return Convert(source=self.source, span=span, options=options, model=model, query=query)

    def _search(self) -> Search:
        following = self.peek(1)
        if following is not None and following.upper in _MEDIA:
            raise self._media(f"SEARCH {following.upper}", 2)
        if following is None or following.upper not in ("TEXT", "KEYWORD"):
            self.position += 1
            raise self.expected("TEXT or KEYWORD", "SEARCH TEXT")
        what = following.upper
        first, model, options, query = self._using(f"SEARCH {what}", "SEARCH", what)
        span = self.span(first, self.end)
        return Search(source=self.source, span=span, options=options, what=what, model=model, query=query)

    def _list(self) -> ListItems:
        first = self.position
        self.position += 1
        if self.accept("THANOSQL"):
            what = self._choice("LIST", "MODEL", "DATASET")
            what = f"THANOSQL {what}"
        else:
            what = self._choice("LIST", "MODEL", "TABLE", "THANOSQL")
        return ListItems(what=what, **self._finish(first, Options("LIST")))  # type: ignore[arg-type]

    def _choice(self, kind: str, *words: str) -> str:
        token = self.peek()
        if token is None or token.upper not in words:
            # People say LIST MODELS; the singular is the language's.
            if token is not None and token.kind is WORD and token.upper.removesuffix("S") in words:
                self.position += 1
                return token.upper.removesuffix("S")
            raise self.expected(" or ".join(words), kind)
        self.position += 1
        return token.upper

    def _get(self) -> GetThanosql:
        first = self.position
        self.position += 1
        self.expect("THANOSQL", "GET THANOSQL DATASET")
        what = self._choice("GET THANOSQL DATASET", "MODEL", "DATASET")
        kind = f"GET THANOSQL {what}"
        name, name_span = self.name(f"the name of a {'data set' if what == 'DATASET' else 'model'}", kind)
        options = self.options(kind)
        return GetThanosql(what=what, name=name, name_span=name_span, **self._finish(first, options))  # type: ignore[arg-type]

    def _upload(self) -> UploadModel:
        kind = "UPLOAD MODEL"
        first = self.position
        self.position += 1
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        options = self.options(kind)
        self.expect("FROM", kind)
        path, path_span = self.path(kind)
        options = self.options(kind, options)
        return UploadModel(
            name=name,
            name_span=name_span,
            path=path,
            path_span=path_span,
            **self._finish(first, options),  # type: ignore[arg-type]
        )

    def _copy(self) -> Copy:
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
            source=self.source,
            span=self.span(first, self.position),
            options=options,
            table=table,
            table_span=table_span,
            path=None if is_rows else content,
            rows_json=content if is_rows else None,
            source_span=source_span,
        )

    def _copy_out(self, token: Token) -> UnsupportedStatement:
        return UnsupportedStatement(
            "COPY brings files in, it does not write them.",
            hint='Write a result with: thano sql "SELECT …" --format csv (or parquet, json).',
        ).at(self.source, token.start, len(token.text))

    def _create(self) -> CreateTableAs:
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

    def _body(self, kind: str) -> Body:
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
            assert isinstance(body, (Predict, ExplainPredict, Evaluate, Convert, Search))
            return body
        return self.query(kind)

    def _drop(self) -> DropTable | DropExpect:
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
        common = self._finish(first, Options(kind))
        return DropTable(name=name, name_span=name_span, if_exists=if_exists, **common)  # type: ignore[arg-type]

    def _drop_expect(self, first: int) -> DropExpect:
        kind = "DROP EXPECT"
        condition_span, table, table_span = self._condition_on_table(kind)
        return DropExpect(
            condition_span=condition_span,
            table=table,
            table_span=table_span,
            **self._finish(first, Options(kind)),  # type: ignore[arg-type]
        )

    def _delete(self) -> DeleteModel:
        kind = "DELETE MODEL"
        first = self.position
        if self.sees("DELETE", "FROM"):
            raise self._unknown_start(self.tokens[first])
        self.position += 1
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        version = self.version(kind) if self.sees("VERSION") else None
        common = self._finish(first, Options(kind))
        return DeleteModel(name=name, name_span=name_span, version=version, **common)  # type: ignore[arg-type]

    def _promote(self) -> PromoteModel:
        kind = "PROMOTE MODEL"
        first = self.position
        self.position += 1
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        version = self.version(kind)
        common = self._finish(first, Options(kind))
        return PromoteModel(name=name, name_span=name_span, version=version, **common)  # type: ignore[arg-type]

    def _rebuild(self) -> RebuildModel:
        kind = "REBUILD MODEL"
        first = self.position
        self.position += 1
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        version = self.version(kind) if self.sees("VERSION") else None
        verify = self.accept("VERIFY")
        common = self._finish(first, Options(kind))
        return RebuildModel(name=name, name_span=name_span, version=version, verify=verify, **common)  # type: ignore[arg-type]

    def _show(self) -> Statement:
        first = self.position
        if self.accept("SHOW", "CREATE"):
            what = self._choice("SHOW CREATE", "MODEL", "TABLE")
            name, name_span = self.table("SHOW CREATE") if what == "TABLE" else self.model("SHOW CREATE")
            common = self._finish(first, Options("SHOW CREATE"))
            return ShowCreate(what=what, name=name, name_span=name_span, **common)  # type: ignore[arg-type]
        if self.sees("SHOW", "LINEAGE") and self.peek(2) is not None:
            self.position += 2
            name, name_span = self.name("the name of a table or model", "SHOW LINEAGE")
            common = self._finish(first, Options("SHOW LINEAGE"))
            return ShowLineage(name=name, name_span=name_span, **common)  # type: ignore[arg-type]
        for word, make in (("VERSIONS", ShowVersions), ("TRAINING", ShowTraining)):
            if self.sees("SHOW", word) and self.peek(2) is not None:
                kind = f"SHOW {word}"
                self.position += 2
                self.expect("OF", kind)
                self.expect("MODEL", kind)
                name, name_span = self.model(kind)
                common = self._finish(first, Options(kind))
                return make(name=name, name_span=name_span, **common)  # type: ignore[arg-type]
        if self.accept("SHOW", "RUNS"):
            return ShowRuns(**self._finish(first, Options("SHOW RUNS")))  # type: ignore[arg-type]
        return self._query_statement()

    def _plan(self) -> Plan:
        first = self.position
        self.position += 1
        if self.sees("PLAN"):
            raise self.expected("a statement", "PLAN")
        inner = self.statement()
        span = Span(self.tokens[first].start, inner.span.end)
        return Plan(source=self.source, span=span, options=Options("PLAN"), statement=inner)

    def _explain(self) -> Statement:
        first = self.position
        following = self.peek(1)
        if following is None:
            self.position += 1
            raise self.expected("a statement", "PLAN")
        if following.upper == "PREDICT":
            self.position += 1
            _, model, options, query = self._using("EXPLAIN PREDICT", "PREDICT")
            span = self.span(first, self.end)
            return ExplainPredict(source=self.source, span=span, options=options, model=model, query=query)
        if following.upper in self._readers and following.upper not in ("SHOW", "EXPLAIN"):
            return self._plan()
        if following.upper in REFUSED_WORDS and following.upper != "ANALYZE":
            self.position += 1
            raise self._unknown_start(following)
        return self._query_statement()

    def _expect_statement(self) -> Expect:
        kind = "EXPECT"
        first = self.position
        self.position += 1
        condition_span, table, table_span = self._condition_on_table(kind)
        common = self._finish(first, Options(kind))
        if condition_span is None:
            self.position = first + 1
            raise self.expected("a condition", kind)
        return Expect(condition_span=condition_span, table=table, table_span=table_span, **common)  # type: ignore[arg-type]

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

    def _print(self) -> Statement:
        following = self.peek(1)
        if following is not None and following.upper in _MEDIA:
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
