"""The statements of the language, as :func:`thano_assets.sql.parse` gives them.

Every statement knows its place in the user's text, keeps its queries as they were written, and can
say itself canonically. Nothing here knows how a statement is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from thano_assets.errors import line_and_column
from thano_assets.sql.base_names import TABLE_BASES, is_media_model
from thano_assets.sql.canonical import (
    identifier,
    join,
    options_text,
    string_text,
    table_name,
    tokens_text,
)
from thano_assets.sql.grammar import CHAMPION
from thano_assets.sql.options import Options
from thano_assets.sql.query import Query
from thano_assets.sql.source import Span


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

        Two statements with the same canonical text make the same thing, so it serves as identity and goes
        into fingerprints. It is itself a statement that parses, and its own canonical text is itself.
        """
        return join(self.option_kind, *self._canonical())

    def _canonical(self) -> tuple[str, ...]:
        """What follows the first words of the canonical text."""
        return ()

    @property
    def inner(self) -> Statement:
        """The statement that gives the rows: that after AS of a CREATE TABLE, else itself."""
        return self

    @property
    def rows_from(self) -> Query | None:
        """The query that the statement reads its rows from, if it has one."""
        return None

    @property
    def model_named(self) -> ModelRef | None:
        """The model that the statement asks or goes on from; a base model perhaps, where it embeds."""
        return None


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

    @property
    def is_champion(self) -> bool:
        """Whether the version is meant that answers: no other one is named."""
        return self.version is None and (self.alias or CHAMPION).lower() == CHAMPION

    def canonical(self) -> str:
        """As it stands in a canonical text; the plain name is the champion."""
        version = f" VERSION {self.version}" if self.version is not None else ""
        alias = f"@{identifier(self.alias)}" if self.alias and self.alias.lower() != CHAMPION else ""
        return identifier(self.name) + version + alias


@dataclass(frozen=True, kw_only=True)
class QueryStatement(Statement):
    """A query of DuckDB's, possibly with ThanoSQL statements nested in it; ``EXPLAIN query`` too."""

    kind: ClassVar[str] = "QUERY"
    query: Query

    @property
    def rows_from(self) -> Query:
        return self.query

    def canonical(self) -> str:
        return self.query.canonical()


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

    def _canonical(self) -> tuple[str, ...]:
        content = self.path if self.path is not None else self.rows_json
        return table_name(self.table), options_text(self.options), "FROM", string_text(content or "")


@dataclass(frozen=True, kw_only=True)
class ModelQuery(Statement):
    """A statement that asks a model about the rows of a query: ``… USING model [OPTIONS (…)] AS query``.

    ``makes`` is the kind of asset that keeps its rows.
    """

    makes: ClassVar[str]

    model: ModelRef
    query: Query

    @property
    def rows_from(self) -> Query:
        return self.query

    @property
    def model_named(self) -> ModelRef:
        return self.model

    def _canonical(self) -> tuple[str, ...]:
        return "USING", self.model.canonical(), options_text(self.options), "AS", self.query.canonical()


@dataclass(frozen=True, kw_only=True)
class ClassifierQuery(ModelQuery):
    """One that asks a model that was trained to predict."""


@dataclass(frozen=True, kw_only=True)
class EncoderQuery(ModelQuery):
    """One that asks a model for embeddings: a registered one, or a base model."""

    def _canonical(self) -> tuple[str, ...]:
        using, model, *rest = super()._canonical()
        if is_media_model(model):
            model = f'"{model}"'  # without quotes it would be refused
        return using, model, *rest


@dataclass(frozen=True, kw_only=True)
class Predict(ClassifierQuery):
    """``PREDICT USING model AS query``."""

    kind: ClassVar[str] = "PREDICT"
    makes: ClassVar[str] = "predictions"


@dataclass(frozen=True, kw_only=True)
class Evaluate(ClassifierQuery):
    """``EVALUATE USING model AS query``."""

    kind: ClassVar[str] = "EVALUATE"
    makes: ClassVar[str] = "evaluations"


@dataclass(frozen=True, kw_only=True)
class ExplainPredict(ClassifierQuery):
    """``EXPLAIN PREDICT USING model AS query``; its options are those of PREDICT and ``top_k``."""

    kind: ClassVar[str] = "EXPLAIN PREDICT"
    makes: ClassVar[str] = "explanations"


@dataclass(frozen=True, kw_only=True)
class Convert(EncoderQuery):
    """``CONVERT USING model AS query``."""

    kind: ClassVar[str] = "CONVERT"
    makes: ClassVar[str] = "embeddings"


@dataclass(frozen=True, kw_only=True)
class Search(EncoderQuery):
    """``SEARCH {TEXT | KEYWORD} USING model AS query``."""

    kind: ClassVar[str] = "SEARCH"
    makes: ClassVar[str] = "searches"
    what: str

    @property
    def option_kind(self) -> str:
        return f"SEARCH {self.what}"


#: The statements that ask a model, by the words that they begin with; SEARCH has one word more.
MODEL_QUERIES: Mapping[str, type[ModelQuery]] = {
    cls.kind: cls for cls in (Predict, ExplainPredict, Evaluate, Convert, Search)
}


@dataclass(frozen=True, kw_only=True)
class CreateTableAs(Statement):
    """``CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name AS body``."""

    kind: ClassVar[str] = "CREATE TABLE AS"
    name: str
    name_span: Span
    or_replace: bool
    if_not_exists: bool
    body: Query | ModelQuery

    @property
    def inner(self) -> Statement:
        return self.body if isinstance(self.body, Statement) else self

    @property
    def rows_from(self) -> Query:
        return self.body if isinstance(self.body, Query) else self.body.query

    def canonical(self) -> str:
        return join("CREATE TABLE", table_name(self.name), "AS", self.body.canonical())


@dataclass(frozen=True, kw_only=True)
class DropTable(Statement):
    """``DROP TABLE [IF EXISTS] name``."""

    kind: ClassVar[str] = "DROP TABLE"
    name: str
    name_span: Span
    if_exists: bool

    def _canonical(self) -> tuple[str, ...]:
        return "IF EXISTS" if self.if_exists else "", table_name(self.name)


@dataclass(frozen=True, kw_only=True)
class TrainModel(Statement):
    """A statement that trains a model on the rows of a query."""

    name: str
    name_span: Span
    query: Query

    @property
    def task(self) -> str | None:
        """What a model of tables predicts: ``classification`` or ``regression``; ``None`` of text models."""
        return None

    @property
    def rows_from(self) -> Query:
        return self.query

    @property
    def evaluate_on(self) -> str | None:
        """The table on which a new version is compared with the champion, where one is named."""
        table = self.options.get("evaluate_on")
        return str(table) if table else None

    @property
    def start(self) -> object:
        """What the training starts from, as it goes into its fingerprint."""
        raise NotImplementedError

    @property
    def start_span(self) -> Span:
        """Where the statement names it."""
        raise NotImplementedError

    def _start(self) -> str:
        """What follows USING in the canonical text."""
        raise NotImplementedError

    def canonical(self) -> str:
        return join(
            self.kind,
            identifier(self.name),
            "USING",
            self._start(),
            options_text(self.options),
            "AS",
            self.query.canonical(),
        )


@dataclass(frozen=True, kw_only=True)
class BuildModel(TrainModel):
    """``BUILD MODEL name USING base AS query``; a quoted ``base`` may be a hub id or a folder.

    This class is a classifier of texts; what else can be built are the classes below.
    """

    kind: ClassVar[str] = "BUILD MODEL"
    base: str
    base_span: Span
    base_quoted: bool

    @property
    def option_kind(self) -> str:
        return self.options.kind

    @property
    def start(self) -> object:
        return self.base, self.base_quoted

    @property
    def start_span(self) -> Span:
        return self.base_span

    def _start(self) -> str:
        return string_text(self.base) if self.base_quoted else identifier(self.base)


@dataclass(frozen=True, kw_only=True)
class BuildBaseModel(BuildModel):
    """A BUILD MODEL whose objective makes a base model, an encoder without labels."""


@dataclass(frozen=True, kw_only=True)
class BuildTableModel(BuildModel):
    """A BUILD MODEL that finds a model of a table's columns."""

    @property
    def task(self) -> str:
        return TABLE_BASES[self.base]


@dataclass(frozen=True, kw_only=True)
class FitModel(TrainModel):
    """``FIT MODEL name USING parent AS query``."""

    kind: ClassVar[str] = "FIT MODEL"
    parent: ModelRef

    @property
    def model_named(self) -> ModelRef:
        return self.parent

    @property
    def start(self) -> object:
        return str(self.parent)

    @property
    def start_span(self) -> Span:
        return self.parent.span

    def _start(self) -> str:
        return self.parent.canonical()


@dataclass(frozen=True, kw_only=True)
class ListItems(Statement):
    """``LIST {MODEL | TABLE | THANOSQL MODEL | THANOSQL DATASET}``; ``what`` is one of these four."""

    kind: ClassVar[str] = "LIST"
    what: str

    def canonical(self) -> str:
        return join("LIST", self.what)


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

    def _canonical(self) -> tuple[str, ...]:
        return identifier(self.name), options_text(self.options)


@dataclass(frozen=True, kw_only=True)
class DeleteModel(Statement):
    """``DELETE MODEL name [VERSION n]``."""

    kind: ClassVar[str] = "DELETE MODEL"
    name: str
    name_span: Span
    version: int | None

    def _canonical(self) -> tuple[str, ...]:
        return identifier(self.name), _version(self.version)


@dataclass(frozen=True, kw_only=True)
class UploadModel(Statement):
    """``UPLOAD MODEL name FROM 'path'``."""

    kind: ClassVar[str] = "UPLOAD MODEL"
    name: str
    name_span: Span
    path: str
    path_span: Span

    def _canonical(self) -> tuple[str, ...]:
        return identifier(self.name), options_text(self.options), "FROM", string_text(self.path)


@dataclass(frozen=True, kw_only=True)
class PromoteModel(Statement):
    """``PROMOTE MODEL name VERSION n``."""

    kind: ClassVar[str] = "PROMOTE MODEL"
    name: str
    name_span: Span
    version: int

    def _canonical(self) -> tuple[str, ...]:
        return identifier(self.name), _version(self.version)


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

    def _canonical(self) -> tuple[str, ...]:
        return identifier(self.name), _version(self.version), "VERIFY" if self.verify else ""


@dataclass(frozen=True, kw_only=True)
class ShowCreate(Statement):
    """``SHOW CREATE {MODEL | TABLE} name``."""

    kind: ClassVar[str] = "SHOW CREATE"
    what: str
    name: str
    name_span: Span

    def _canonical(self) -> tuple[str, ...]:
        return self.what, (table_name if self.what == "TABLE" else identifier)(self.name)


@dataclass(frozen=True, kw_only=True)
class ShowLineage(Statement):
    """``SHOW LINEAGE name``."""

    kind: ClassVar[str] = "SHOW LINEAGE"
    name: str
    name_span: Span

    def _canonical(self) -> tuple[str, ...]:
        return (identifier(self.name),)


@dataclass(frozen=True, kw_only=True)
class ShowVersions(Statement):
    """``SHOW VERSIONS OF MODEL name``."""

    kind: ClassVar[str] = "SHOW VERSIONS"
    name: str
    name_span: Span

    def _canonical(self) -> tuple[str, ...]:
        return "OF MODEL", identifier(self.name)


@dataclass(frozen=True, kw_only=True)
class ShowTraining(Statement):
    """``SHOW TRAINING OF MODEL name``."""

    kind: ClassVar[str] = "SHOW TRAINING"
    name: str
    name_span: Span

    def _canonical(self) -> tuple[str, ...]:
        return "OF MODEL", identifier(self.name)


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

    def _canonical(self) -> tuple[str, ...]:
        return tokens_text(self.source, self.condition_span), "ON", table_name(self.table)


@dataclass(frozen=True, kw_only=True)
class DropExpect(Statement):
    """``DROP EXPECT [condition] ON table``: all expectations of the table where no condition is given."""

    kind: ClassVar[str] = "DROP EXPECT"
    condition_span: Span | None
    table: str
    table_span: Span

    def _canonical(self) -> tuple[str, ...]:
        span = self.condition_span
        condition = "" if span is None else tokens_text(self.source, span)
        return condition, "ON", table_name(self.table)


@dataclass(frozen=True, kw_only=True)
class Plan(Statement):
    """``PLAN statement``, or ``EXPLAIN`` before a ThanoSQL statement."""

    kind: ClassVar[str] = "PLAN"
    statement: Statement

    def _canonical(self) -> tuple[str, ...]:
        return (self.statement.canonical(),)


def _version(number: int | None) -> str:
    return f"VERSION {number}" if number is not None else ""
