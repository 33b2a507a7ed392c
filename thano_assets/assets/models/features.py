"""What a model reads of the rows of a query, as SQL: a column of text, or columns by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from thano_assets.assets.models.labels import class_of
from thano_assets.assets.predictions.prediction_cache import has_text
from thano_assets.assets.tables.queries import find_column, text_column
from thano_assets.errors import (
    ColumnTypeError,
    InvalidOption,
    TrainingDataError,
    UnknownColumn,
    did_you_mean,
)
from thano_assets.resources.warehouse import Column, literal, quote
from thano_assets.sql.statements import (
    BuildBaseModel,
    ClassifierQuery,
    Evaluate,
    Statement,
    TrainModel,
)

if TYPE_CHECKING:
    from thano_assets.resources.model_version import ModelVersion

_NUMBER = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)|FLOAT|DOUBLE|DECIMAL\(.*\)")
_VECTOR = re.compile(r"(?:U?(?:TINYINT|SMALLINT|INTEGER|BIGINT)|FLOAT|DOUBLE|DECIMAL\(.*\))\[(\d+)\]")
_DATE = re.compile(r"DATE|TIMESTAMP(_S|_MS|_NS| WITH TIME ZONE)?")
_TEXT = re.compile(r"VARCHAR|ENUM\(.*\)|UUID", re.DOTALL)
#: What a whole row of a relation is called where a snapshot is written.
SNAPSHOT_ROW = "_thano_row"
# What options of PREDICT and EVALUATE say of texts.
_OF_TEXTS = ("text_col", "batch_size")


class Reading(Protocol):
    """How rows of a query, or of a snapshot, are read.

    ``names`` are the columns that a snapshot keeps of it, besides the label.
    """

    @property
    def names(self) -> list[str]:
        """The columns of a snapshot."""

    @property
    def select(self) -> str:
        """SQL expressions for ``names``, over the rows of a query or over a snapshot."""

    @property
    def present(self) -> str:
        """SQL that is true for the rows that a model can be trained on."""

    @property
    def key(self) -> str:
        """SQL that is the same for two rows where the model reads the same."""

    @property
    def kept(self) -> Reading:
        """How the rows of a snapshot are read."""

    @property
    def order(self) -> str:
        """SQL for the order of a snapshot, whatever the order that the rows came in."""


@dataclass(frozen=True)
class TextReading:
    """A column of text; rows without text are left out of a training."""

    column: str

    @property
    def names(self) -> list[str]:
        return ["text"]

    @property
    def select(self) -> str:
        return f"{self.key} AS text"

    @property
    def present(self) -> str:
        return has_text(self.key)

    @property
    def key(self) -> str:
        return f"CAST({quote(self.column)} AS VARCHAR)"

    @property
    def kept(self) -> TextReading:
        return TextReading("text")

    @property
    def order(self) -> str:
        return "md5(text), text, label"


@dataclass(frozen=True)
class Feature:
    """A column that a model of tables reads.

    Attributes:
        name: As it was called in training; at prediction in any case.
        kind: ``number``, ``boolean``, ``category``, ``datetime`` or ``vector``.
        type: Its DuckDB type in training.
        size: Of a vector.
        asked: The DuckDB type of the column that stands for it, where that is another one.
        categories: The values that it had in training, as text, where ``asked`` is set.
    """

    name: str
    kind: str
    type: str
    size: int | None = None
    asked: str | None = None
    categories: tuple[str, ...] | None = None

    @property
    def sql(self) -> str:
        """The value as the model takes it; a text that is no date is NULL."""
        column = quote(self.name)
        match self.kind:
            case "number":
                return f"CAST({column} AS DOUBLE)"
            case "boolean":
                return f"CAST(CAST({column} AS BOOLEAN) AS DOUBLE)"
            case "datetime":
                return f"TRY_CAST({column} AS TIMESTAMP)"
            case "vector":
                return f"CAST({column} AS FLOAT[{self.size}])"
        if self.asked is not None:
            return class_of(column, self.asked, self.categories or (), self.type)
        return f"CAST({column} AS VARCHAR)"

    def takes(self, type_: str) -> bool:
        """Whether a column of that DuckDB type can stand for it."""
        if type_ == '"NULL"':
            return True
        match self.kind:
            case "number" | "boolean":
                return _NUMBER.fullmatch(type_) is not None or type_ == "BOOLEAN"
            case "datetime":
                return (_DATE if _DATE.fullmatch(self.type) else _TEXT).fullmatch(type_) is not None or bool(
                    _DATE.fullmatch(type_)
                )
            case "vector":
                found = _VECTOR.fullmatch(type_)
                return found is not None and int(found[1]) == self.size
        return "[" not in type_ and "(" not in type_.removeprefix("ENUM(").removeprefix("DECIMAL(")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class TableReading:
    """Columns by their names; every row can be read."""

    features: tuple[Feature, ...]

    @classmethod
    def of(cls, features: Sequence[dict[str, Any]]) -> TableReading:
        """From what :meth:`Feature.as_dict` gave."""
        return cls(tuple(Feature(**feature) for feature in features))

    @property
    def names(self) -> list[str]:
        return [feature.name for feature in self.features]

    @property
    def select(self) -> str:
        return ", ".join(f"{feature.sql} AS {quote(feature.name)}" for feature in self.features)

    @property
    def present(self) -> str:
        return "true"

    @property
    def key(self) -> str:
        parts = ", ".join(feature.sql for feature in self.features)
        return f"md5(CAST(row({parts}) AS VARCHAR))"

    @property
    def kept(self) -> TableReading:
        return self

    @property
    def order(self) -> str:
        return f"md5(CAST({SNAPSHOT_ROW} AS VARCHAR))"


def training_columns(statement: TrainModel, columns: list[Column]) -> tuple[Reading, Column | None]:
    """How the rows of a BUILD or FIT MODEL are read, and the column of labels; a base model has none.

    Raises:
        UnknownColumn, ColumnTypeError: its options do not fit the query.
        TrainingDataError: no column is left to learn from.
    """
    if isinstance(statement, BuildBaseModel):
        return TextReading(text_column(columns, statement).name), None
    if not statement.task:
        return TextReading(text_column(columns, statement).name), find_column(columns, statement, "label_col")
    label = find_column(columns, statement, "label_col")
    if statement.task == "regression" and not is_number(label):
        raise ColumnTypeError(
            f"Column {label.name} is {label.type}, not a number.",
            hint=f"AutomlClassifier predicts classes; CAST({label.name} AS DOUBLE) makes numbers of texts.",
        ).at(statement.source, statement.span.start)
    dropped = _named(statement, "features_to_drop", columns)
    dates = _named(statement, "datetime_attribs", columns)
    features = []
    for column in columns:
        if column == label or column.name.casefold() in dropped:
            continue
        feature = _feature(column, date=column.name.casefold() in dates)
        if feature is not None:
            features.append(feature)
        elif column.name.casefold() in dates:
            raise ColumnTypeError(
                f"Column {column.name} of datetime_attribs is {column.type}, neither text nor a date.",
                hint="Leave it out of datetime_attribs.",
            ).at(statement.source, statement.options.value_span("datetime_attribs").start)
    if not features:
        raise TrainingDataError(
            f"The query has no column to predict {label.name} from.",
            hint="Numbers, texts, booleans, dates and vectors such as FLOAT[384] are learnt from.",
        ).at(statement.source, statement.query.span.start)
    return TableReading(tuple(features)), label


def unread(columns: list[Column], statement: TrainModel, reading: Reading) -> list[Column]:
    """Columns of the query that a model of tables cannot read, and that nobody dropped."""
    if not isinstance(reading, TableReading):
        return []
    known = {name.casefold() for name in reading.names}
    known |= {name.casefold() for name in statement.options.get("features_to_drop") or ()}
    known.add(str(statement.options.value("label_col")).casefold())
    return [column for column in columns if column.name.casefold() not in known]


def _named(statement: TrainModel, option: str, columns: list[Column]) -> set[str]:
    names = [column.name for column in columns]
    folded = {name.casefold() for name in names}
    given = statement.options.get(option) or ()
    for name in given:
        if name.casefold() not in folded:
            place = statement.options.value_span(option)
            raise UnknownColumn(
                f"{option} names {name}, a column that the query does not have.",
                hint=did_you_mean(name, names, "columns"),
            ).at(statement.source, place.start, len(place))
    return {name.casefold() for name in given}


def _feature(column: Column, *, date: bool) -> Feature | None:
    name, type_ = column.name, column.type
    if date and not (_TEXT.fullmatch(type_) or _DATE.fullmatch(type_)):
        return None
    if date or _DATE.fullmatch(type_):
        return Feature(name, "datetime", type_)
    if _NUMBER.fullmatch(type_):
        return Feature(name, "number", type_)
    if type_ == "BOOLEAN":
        return Feature(name, "boolean", type_)
    if vector := _VECTOR.fullmatch(type_):
        return Feature(name, "vector", type_, int(vector[1]))
    return Feature(name, "category", type_) if _TEXT.fullmatch(type_) else None


def training_rows(
    relation: str,
    reading: Reading,
    label: Column | None,
    label_type: str = "VARCHAR",
    value: str | None = None,
) -> str:
    """SQL for the rows of ``relation`` that a model is trained on, the label last where there is one.

    ``value`` is SQL of the label where it is not the column itself.
    """
    labels = ""
    if label is not None:
        value = value or quote(label.name)
        labels = f", CAST({value} AS {label_type}) AS {quote(label_name(reading, label))}"
    return f"SELECT {reading.select}{labels} FROM {relation} WHERE {reading.present}"


def label_name(reading: Reading, label: Column) -> str:
    """What a snapshot calls its column of labels."""
    return "label" if isinstance(reading, TextReading) else label.name


def is_number(column: Column) -> bool:
    """Whether a column holds numbers."""
    return _NUMBER.fullmatch(column.type) is not None


def label_type_kept(statement: TrainModel) -> str:
    """The DuckDB type of labels in a snapshot."""
    return "DOUBLE" if statement.task == "regression" else "VARCHAR"


def asked_columns(statement: ClassifierQuery, version: ModelVersion, columns: list[Column]) -> Reading:
    """How ``version`` reads the rows that a statement asks it about.

    Raises:
        UnknownColumn, ColumnTypeError: the query has not the columns that the model was trained on.
        InvalidOption: an option that is about texts, and the model reads none.
    """
    if version.task is None:
        return TextReading(text_column(columns, statement, version.params.get("text_col")).name)
    who = f"{version.name} VERSION {version.version}"
    for option in _OF_TEXTS:
        if option in statement.options:
            place = statement.options.place(option)
            raise InvalidOption(
                f"{option} is about texts; {who} is a model of tables, which finds its columns by name.",
                hint=f"Leave {option} out.",
            ).at(statement.source, place.start, len(place))
    if version.task == "regression" and statement.options.get("report") not in (None, "summary"):
        place = statement.options.value_span("report")
        raise InvalidOption(
            f"report='{statement.options['report']}' is about classes; {who} predicts numbers.",
            hint="Leave report out.",
        ).at(statement.source, place.start, len(place))
    reading = TableReading.of(version.features)
    found = {column.name.casefold(): column for column in columns}
    missing = [name for name in reading.names if name.casefold() not in found]
    if missing:
        raise UnknownColumn(
            f"The query has no column {', '.join(missing[:8])}, which {who} reads.",
            hint=did_you_mean(missing[0], [column.name for column in columns], "columns"),
        ).at(statement.source, statement.query.span.start)
    for feature in reading.features:
        column = found[feature.name.casefold()]
        if not feature.takes(column.type):
            raise ColumnTypeError(
                f"Column {column.name} is {column.type}; {who} was trained on {feature.type}.",
                hint=f"Cast it in the query: CAST({column.name} AS {feature.type}) AS {column.name}.",
            ).at(statement.source, statement.query.span.start)
    return asked_with(reading, columns, version.categories)


def asked_with(
    reading: TableReading, columns: list[Column], categories: Callable[[], dict[str, list[str]]]
) -> TableReading:
    """``reading`` for columns of other types than in training: a category is the one that SQL finds equal.

    Args:
        reading: of a model of tables.
        columns: those that it is asked with.
        categories: gives the values of each category in training, by the columns' names.
    """
    types = {column.name.casefold(): column.type for column in columns}
    features = []
    for feature in reading.features:
        asked = types[feature.name.casefold()]
        if feature.kind == "category" and asked not in (feature.type, '"NULL"'):
            known = tuple(categories().get(feature.name, ()))
            feature = replace(feature, asked=asked, categories=known)
        features.append(feature)
    return TableReading(tuple(features))


def truth_column(statement: ClassifierQuery, version: ModelVersion, columns: list[Column]) -> Column | None:
    """The column of true labels: that of ``label_col``; of a model of tables, by default its own in EVALUATE.

    Raises:
        UnknownColumn: the query has no such column.
        ColumnTypeError: it holds no numbers, and the model predicts them.
    """
    evaluated = isinstance(statement, Evaluate)
    if not evaluated and not statement.options.get("label_col"):
        return None
    if evaluated and version.task and "label_col" not in statement.options:
        name = version.target
        found = next((one for one in columns if one.name.casefold() == name.casefold()), None)
        if found is None:
            raise UnknownColumn(
                f"The query has no column {name}, which {version.name} VERSION {version.version} predicts.",
                hint="OPTIONS (target_col='…') names the column of true values.",
            ).at(statement.source, statement.query.span.start)
    else:
        found = find_column(columns, statement, "label_col", version.params.get("label_col"))
    if version.task == "regression" and not is_number(found):
        raise ColumnTypeError(
            f"Column {found.name} is {found.type}, and {version.name} predicts numbers.",
            hint=f"CAST({found.name} AS DOUBLE) makes numbers of texts.",
        ).at(statement.source, statement.query.span.start)
    return found


def dates_not_read(relation: str, reading: Reading) -> str | None:
    """SQL that counts, for each date that is text, the values that are no dates; ``None`` without any."""
    if not isinstance(reading, TableReading):
        return None
    texts = [one for one in reading.features if one.kind == "datetime"]
    parts = [
        f"SELECT {literal(one.name)} AS name, count(*) AS n FROM {relation} "
        f"WHERE {quote(one.name)} IS NOT NULL AND {one.sql} IS NULL"
        for one in texts
    ]
    return f"SELECT * FROM ({' UNION ALL '.join(parts)}) WHERE n > 0" if parts else None


def statement_columns(
    statement: Statement, version: ModelVersion | None, columns: Sequence[str]
) -> list[str]:
    """Names of those of ``columns`` that the answer of a statement depends on."""
    if version is not None and version.task:
        return TableReading.of(version.features).names
    named = str(statement.options.value("text_col"))
    own = version.params.get("text_col") if version is not None else None
    present = {name.casefold() for name in columns}
    taken = own and "text_col" not in statement.options and named.casefold() not in present
    return [str(own) if taken else named]
