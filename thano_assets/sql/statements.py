"""The statements of the language, as :func:`thano_assets.sql.parse` gives them.

Every statement knows its place in the user's text, keeps its queries as they were written, and can
say itself canonically. Nothing here knows how a statement is run.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from thano_assets.errors import line_and_column
from thano_assets.sql.base_names import TABLE_BASES
from thano_assets.sql.objectives import BASE_KIND
from thano_assets.sql.options import Options
from thano_assets.sql.source import Span

__all__ = [
    "Body",
    "BuildModel",
    "Convert",
    "Copy",
    "CreateTableAs",
    "DeleteModel",
    "DropExpect",
    "DropTable",
    "Evaluate",
    "Expect",
    "ExplainPredict",
    "FitModel",
    "GetThanosql",
    "ListItems",
    "ModelRef",
    "Nested",
    "Plan",
    "Predict",
    "PromoteModel",
    "Query",
    "QueryStatement",
    "RebuildModel",
    "Rendered",
    "Search",
    "ShowCreate",
    "ShowLineage",
    "ShowRuns",
    "ShowTraining",
    "ShowVersions",
    "Span",
    "Statement",
    "UploadModel",
]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Base of all statements.

    Attributes:
        source: the whole text given to ``parse``; all spans count in it.
        span: the statement itself, without its ``;``.
        options: what stood in ``OPTIONS (…)``.
    """

    kind: ClassVar[str] = "STATEMENT"

    source: str = field(repr=False)
    span: Span
    options: Options

    @property
    def text(self) -> str:
        """The statement as it was written, without its ``;``."""
        return self.span.slice(self.source)

    @property
    def place(self) -> tuple[int, int]:
        """1-based line and column where the statement begins."""
        return line_and_column(self.source, self.span.start)

    @property
    def option_kind(self) -> str:
        """The key of ``OPTION_SPECS`` and of the grammar; finer than ``kind`` for some."""
        return self.kind

    def canonical(self) -> str:
        """The statement without white space, comments, keyword case, option order, aliases, given defaults.

        Two statements with the same canonical text make the same thing; it is itself a statement that parses.
        """
        from thano_assets.sql.canonical import canonical_statement

        return canonical_statement(self)


@dataclass(frozen=True)
class Nested:
    """A statement in parentheses inside a query; ``span`` covers the parentheses too."""

    span: Span
    statement: Statement


@dataclass(frozen=True)
class Rendered:
    """A query's text for DuckDB, nested statements replaced by relations.

    Attributes:
        text: what DuckDB gets.
        pieces: for each piece of ``text``: its start in ``text``, its start in the source, and whether its
            characters stand one to one for those of the source (else all of it stands for that one place).
    """

    text: str
    pieces: tuple[tuple[int, int, bool], ...] = field(repr=False)

    def to_source(self, offset: int) -> int:
        """The offset in the user's text that a 0-based character offset of ``text`` came from."""
        starts = [piece[0] for piece in self.pieces]
        start, origin, verbatim = self.pieces[max(0, bisect_right(starts, offset) - 1)]
        return origin + max(0, offset - start) if verbatim else origin


@dataclass(frozen=True)
class Query:
    """A query of DuckDB's SQL, kept as it was written, with the statements nested in it."""

    source: str = field(repr=False)
    span: Span
    nested: tuple[Nested, ...] = ()

    @property
    def text(self) -> str:
        """The query as it was written, nested statements included."""
        return self.span.slice(self.source)

    def render(self, names: Sequence[str] = ()) -> Rendered:
        """The query with each nested statement replaced by ``(FROM "name")``.

        Args:
            names: one relation for each of ``nested``, in order; quoted here.

        Raises:
            ValueError: another number of names than of nested statements.
        """
        if len(names) != len(self.nested):
            raise ValueError(f"{len(self.nested)} names are needed, {len(names)} were given")
        parts: list[str] = []
        pieces: list[tuple[int, int, bool]] = []
        length = 0
        position = self.span.start
        for name, nested in zip(names, self.nested, strict=True):
            for start, end, text in (
                (position, nested.span.start, None),
                (nested.span.start, nested.span.end, '(FROM "' + name.replace('"', '""') + '")'),
            ):
                part = self.source[start:end] if text is None else text
                if part:
                    pieces.append((length, start, text is None))
                    parts.append(part)
                    length += len(part)
            position = nested.span.end
        rest = self.source[position : self.span.end]
        if rest or not pieces:
            pieces.append((length, position, True))
            parts.append(rest)
        return Rendered("".join(parts), tuple(pieces))


@dataclass(frozen=True)
class ModelRef:
    """A model as it is named after USING: ``name``, ``name VERSION 3`` or ``name@alias``.

    ``quoted`` says that the name stood in quotes (a hub id or a folder may be meant).
    """

    name: str
    version: int | None
    alias: str | None
    span: Span
    quoted: bool = False

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name} VERSION {self.version}"
        return f"{self.name}@{self.alias}" if self.alias else self.name


@dataclass(frozen=True, kw_only=True)
class QueryStatement(Statement):
    """A query of DuckDB's, possibly with ThanoSQL statements nested in it; ``EXPLAIN query`` too."""

    kind: ClassVar[str] = "QUERY"
    query: Query


@dataclass(frozen=True, kw_only=True)
class Copy(Statement):
    """``COPY table FROM source``; one of ``path`` and ``rows_json`` is set."""

    kind: ClassVar[str] = "COPY"
    table: str
    table_span: Span
    path: str | None
    rows_json: str | None
    source_span: Span

    @property
    def mode(self) -> str:
        """What to do when the table exists: ``fail``, ``replace`` or ``append``."""
        mode: str = "replace" if self.options.value("overwrite") else self.options.value("if_exists")
        return mode


@dataclass(frozen=True, kw_only=True)
class Predict(Statement):
    """``PREDICT USING model AS query``."""

    kind: ClassVar[str] = "PREDICT"
    model: ModelRef
    query: Query


@dataclass(frozen=True, kw_only=True)
class Evaluate(Statement):
    """``EVALUATE USING model AS query``."""

    kind: ClassVar[str] = "EVALUATE"
    model: ModelRef
    query: Query


@dataclass(frozen=True, kw_only=True)
class Convert(Statement):
    """``CONVERT USING model AS query``."""

    kind: ClassVar[str] = "CONVERT"
    model: ModelRef
    query: Query


@dataclass(frozen=True, kw_only=True)
class Search(Statement):
    """``SEARCH {TEXT | KEYWORD} USING model AS query``."""

    kind: ClassVar[str] = "SEARCH"
    what: str
    model: ModelRef
    query: Query

    @property
    def option_kind(self) -> str:
        return f"SEARCH {self.what}"


@dataclass(frozen=True, kw_only=True)
class ExplainPredict(Statement):
    """``EXPLAIN PREDICT USING model AS query``; its options are those of PREDICT and ``top_k``."""

    kind: ClassVar[str] = "EXPLAIN PREDICT"
    model: ModelRef
    query: Query


Body: TypeAlias = Query | Predict | ExplainPredict | Evaluate | Convert | Search


@dataclass(frozen=True, kw_only=True)
class CreateTableAs(Statement):
    """``CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name AS body``."""

    kind: ClassVar[str] = "CREATE TABLE AS"
    name: str
    name_span: Span
    or_replace: bool
    if_not_exists: bool
    body: Body


@dataclass(frozen=True, kw_only=True)
class DropTable(Statement):
    """``DROP TABLE [IF EXISTS] name``."""

    kind: ClassVar[str] = "DROP TABLE"
    name: str
    name_span: Span
    if_exists: bool


@dataclass(frozen=True, kw_only=True)
class BuildModel(Statement):
    """``BUILD MODEL name USING base AS query``; a quoted ``base`` may be a hub id or a folder.

    Its options are those of a base model where the objective makes one.
    """

    kind: ClassVar[str] = "BUILD MODEL"
    name: str
    name_span: Span
    base: str
    base_span: Span
    base_quoted: bool
    query: Query

    @property
    def option_kind(self) -> str:
        return self.options.kind

    @property
    def pretrains(self) -> bool:
        """Whether it makes a base model, not a classifier."""
        return self.options.kind == BASE_KIND

    @property
    def task(self) -> str | None:
        """What a model of tables predicts: ``classification`` or ``regression``; ``None`` of text models."""
        return TABLE_BASES.get(self.base)


@dataclass(frozen=True, kw_only=True)
class FitModel(Statement):
    """``FIT MODEL name USING parent AS query``."""

    kind: ClassVar[str] = "FIT MODEL"
    name: str
    name_span: Span
    parent: ModelRef
    query: Query


@dataclass(frozen=True, kw_only=True)
class ListItems(Statement):
    """``LIST {MODEL | TABLE | THANOSQL MODEL | THANOSQL DATASET}``; ``what`` is one of these four."""

    kind: ClassVar[str] = "LIST"
    what: str


@dataclass(frozen=True, kw_only=True)
class GetThanosql(Statement):
    """``GET THANOSQL {MODEL | DATASET} name``; ``what`` is MODEL or DATASET."""

    kind: ClassVar[str] = "GET THANOSQL"
    what: str
    name: str
    name_span: Span

    @property
    def option_kind(self) -> str:
        return f"GET THANOSQL {self.what}"


@dataclass(frozen=True, kw_only=True)
class DeleteModel(Statement):
    """``DELETE MODEL name [VERSION n]``."""

    kind: ClassVar[str] = "DELETE MODEL"
    name: str
    name_span: Span
    version: int | None


@dataclass(frozen=True, kw_only=True)
class UploadModel(Statement):
    """``UPLOAD MODEL name FROM 'path'``."""

    kind: ClassVar[str] = "UPLOAD MODEL"
    name: str
    name_span: Span
    path: str
    path_span: Span


@dataclass(frozen=True, kw_only=True)
class PromoteModel(Statement):
    """``PROMOTE MODEL name VERSION n``."""

    kind: ClassVar[str] = "PROMOTE MODEL"
    name: str
    name_span: Span
    version: int


@dataclass(frozen=True, kw_only=True)
class RebuildModel(Statement):
    """``REBUILD MODEL name [VERSION n] [VERIFY]``: train again from what a version was trained from.

    With ``verify`` nothing is registered: the result says whether both are equal.
    """

    kind: ClassVar[str] = "REBUILD MODEL"
    name: str
    name_span: Span
    version: int | None = None
    verify: bool = False


@dataclass(frozen=True, kw_only=True)
class ShowCreate(Statement):
    """``SHOW CREATE {MODEL | TABLE} name``."""

    kind: ClassVar[str] = "SHOW CREATE"
    what: str
    name: str
    name_span: Span


@dataclass(frozen=True, kw_only=True)
class ShowLineage(Statement):
    """``SHOW LINEAGE name``."""

    kind: ClassVar[str] = "SHOW LINEAGE"
    name: str
    name_span: Span


@dataclass(frozen=True, kw_only=True)
class ShowVersions(Statement):
    """``SHOW VERSIONS OF MODEL name``."""

    kind: ClassVar[str] = "SHOW VERSIONS"
    name: str
    name_span: Span


@dataclass(frozen=True, kw_only=True)
class ShowTraining(Statement):
    """``SHOW TRAINING OF MODEL name``."""

    kind: ClassVar[str] = "SHOW TRAINING"
    name: str
    name_span: Span


@dataclass(frozen=True, kw_only=True)
class ShowRuns(Statement):
    """``SHOW RUNS``."""

    kind: ClassVar[str] = "SHOW RUNS"


@dataclass(frozen=True, kw_only=True)
class Expect(Statement):
    """``EXPECT condition ON table``; ``condition`` is an expression over the table's columns."""

    kind: ClassVar[str] = "EXPECT"
    condition_span: Span
    table: str
    table_span: Span

    @property
    def condition(self) -> str:
        """The condition as it was written."""
        return self.condition_span.slice(self.source)


@dataclass(frozen=True, kw_only=True)
class DropExpect(Statement):
    """``DROP EXPECT [condition] ON table``: all expectations of the table where no condition is given."""

    kind: ClassVar[str] = "DROP EXPECT"
    condition_span: Span | None
    table: str
    table_span: Span


@dataclass(frozen=True, kw_only=True)
class Plan(Statement):
    """``PLAN statement``, or ``EXPLAIN`` before a ThanoSQL statement."""

    kind: ClassVar[str] = "PLAN"
    statement: Statement
