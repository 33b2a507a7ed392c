"""The rows that champion and challenger are held against: a table, or the rows that were held out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thano_assets.assets.models.features import (
    Reading,
    TableReading,
    TextReading,
    asked_with,
    is_number,
    label_type_kept,
    training_columns,
    training_rows,
)
from thano_assets.assets.models.labels import class_of, missing_words, present_label
from thano_assets.assets.models.leakage import Leak, Memory, Trained, rows_seen
from thano_assets.assets.models.training_sets import TrainingSet, write_snapshot
from thano_assets.assets.runtime import Runtime
from thano_assets.assets.tables.queries import Stage, text_column
from thano_assets.errors import (
    ColumnTypeError,
    TrainingDataError,
    UnknownColumn,
    UnknownTable,
    did_you_mean,
)
from thano_assets.resources.warehouse import Column, describe, literal, quote
from thano_assets.sql.statements import TrainModel
from thano_assets.system import scratch_database

if TYPE_CHECKING:
    from thano_assets.resources.registry import ModelVersion


_TEXT_OPTIONS = ("text_col", "label_col")


@dataclass(frozen=True)
class JudgingRows:
    """Rows that versions are held against.

    Attributes:
        path: Parquet file with the columns of a training set's snapshot.
        fingerprint: Of the rows, free of their order.
        rows: How many.
        name: What they are, in words.
    """

    path: Path
    fingerprint: str
    rows: int
    name: str


def reading_of(version: ModelVersion) -> Reading:
    """How a version reads the rows of a snapshot."""
    return TableReading.of(version.features) if version.task else TextReading("text")


def check_evaluation_table(
    statement: TrainModel, runtime: Runtime, query: list[Column] | None = None
) -> None:
    """Check, where the table of ``evaluate_on`` is there already, that it has the columns that are needed.

    Args:
        statement: Has the options.
        runtime: Where the table is.
        query: The columns of the statement's query: those that a model of tables needs.

    Raises:
        UnknownColumn, ColumnTypeError: placed at the option.
    """
    tables = statement.task is not None
    if statement.options.get("evaluate_on") is None or tables is (query is None):
        return
    table = str(statement.options["evaluate_on"])
    if not runtime.warehouse.exists(table):
        return
    with runtime.warehouse.read() as connection:
        columns = describe(connection, quote(table))
    if query is None:
        _columns(statement, columns)
        return
    reading, label = training_columns(statement, query)
    assert label is not None  # only base models have none
    _read_like(statement, reading, label.name, columns)


def _columns(statement: TrainModel, columns: list[Column]) -> tuple[Column, Column]:
    """The text and the label column of the table of ``evaluate_on``."""
    found = [_column(statement, columns, str(statement.options.value(name)), name) for name in _TEXT_OPTIONS]
    try:
        text_column(columns, statement)
    except ColumnTypeError as error:
        place = statement.options.value_span("evaluate_on")
        table = statement.options["evaluate_on"]
        raise ColumnTypeError(f"In the table {table} of evaluate_on: {error.message}", hint=error.hint).at(
            statement.source, place.start, len(place)
        ) from None
    return found[0], found[1]


def _column(statement: TrainModel, columns: list[Column], name: str, what: str) -> Column:
    column = next((one for one in columns if one.name.casefold() == name.casefold()), None)
    if column is None:
        place = statement.options.value_span("evaluate_on")
        raise UnknownColumn(
            f"The table {statement.options['evaluate_on']} of evaluate_on has no column {name}, the {what}."
            if what
            else f"The table {statement.options['evaluate_on']} of evaluate_on has no column {name}.",
            hint=did_you_mean(name, [one.name for one in columns], "columns"),
        ).at(statement.source, place.start, len(place))
    return column


def _read_like(
    statement: TrainModel, reading: Reading, label: str, columns: list[Column]
) -> tuple[Reading, Column]:
    """How the table of ``evaluate_on`` is read, so that its rows are those of a snapshot.

    Args:
        statement: Has the options.
        reading: How the training rows are read.
        label: Their column of labels.
        columns: Of the table.
    """
    if not isinstance(reading, TableReading):
        text, truth = _columns(statement, columns)
        return TextReading(text.name), truth
    for feature in reading.features:
        column = _column(statement, columns, feature.name, "")
        if not feature.takes(column.type):
            place = statement.options.value_span("evaluate_on")
            raise ColumnTypeError(
                f"Column {column.name} of {statement.options['evaluate_on']}, the table of evaluate_on, is "
                f"{column.type}; in the query it is {feature.type}.",
                hint="Make the table with the types of the query.",
            ).at(statement.source, place.start, len(place))
    truth = _column(statement, columns, label, "label_col")
    if label_type_kept(statement) == "DOUBLE" and not is_number(truth):
        place = statement.options.value_span("evaluate_on")
        raise ColumnTypeError(
            f"Column {truth.name} of {statement.options['evaluate_on']}, the table of evaluate_on, is "
            f"{truth.type}, not a number.",
            hint="Make the table with the types of the query.",
        ).at(statement.source, place.start, len(place))
    return reading, truth


def rows_of_table(
    statement: TrainModel,
    training_set: TrainingSet,
    classes: list[str],
    label_type: str,
    runtime: Runtime,
) -> JudgingRows:
    """Keep the rows of the table of ``evaluate_on``, checked like training rows."""
    table = str(statement.options["evaluate_on"])
    place = statement.options.value_span("evaluate_on")
    if not runtime.warehouse.exists(table):
        known = [one.name for one in runtime.warehouse.tables()]
        raise UnknownTable(
            f"There is no table {table}, which evaluate_on names.", hint=did_you_mean(table, known, "tables")
        ).at(statement.source, place.start, len(place))
    with runtime.warehouse.read() as connection:
        columns = describe(connection, quote(table))
        reading, label = _read_like(statement, training_set.reading, training_set.label, columns)
        if isinstance(reading, TableReading):
            reading = asked_with(reading, columns, lambda: _categories(training_set, runtime))
        type_ = label_type_kept(statement)
        if type_ == "DOUBLE":
            true = present_label(quote(label.name), label.type, numbers=True)
        else:
            true = class_of(quote(label.name), label.type, classes, label_type)
        rows = training_rows(quote(table), reading, label, type_, true)
        named = quote(training_set.label)
        value = f"CASE WHEN {named} IS NOT NULL THEN '' END" if type_ == "DOUBLE" else named
        counts: dict[str | None, int] = dict(
            connection.execute(f"SELECT {value}, count(*) FROM ({rows}) GROUP BY 1 ORDER BY 1").fetchall()
        )
        strangers = [
            f"{name}: {count:,}"
            for name, count in counts.items()
            if type_ != "DOUBLE" and name is not None and name not in classes
        ]
        problem = None
        missing, hint = missing_words(label.name, label.type)
        if not counts:
            problem = TrainingDataError(
                f"The table {table} of evaluate_on has no row"
                + (" with a text." if isinstance(reading, TextReading) else "."),
                hint="Without rows no version can be held against another.",
            )
        elif None in counts:
            problem = TrainingDataError(
                f"{counts[None]:,} rows of {table}, the table of evaluate_on, have {missing} in "
                f"{label.name}.",
                hint=hint.replace("Leave them out with", "Make the table without them:"),
            )
        elif strangers:
            problem = TrainingDataError(
                f"The table {table} of evaluate_on has labels that the training rows do not have "
                f"({', '.join(strangers[:8])}).",
                hint=f"The training rows have: {', '.join(classes[:12])}.",
            )
        if problem is not None:
            raise problem.at(statement.source, place.start, len(place))
        fingerprint = runtime.warehouse.fingerprint(connection, rows)
        path = runtime.workspace.kept(f"{fingerprint}.parquet")
        write_snapshot(connection, f"({rows})", path, reading.order)
    return JudgingRows(path, fingerprint, sum(counts.values()), table)


def _categories(training_set: TrainingSet, runtime: Runtime) -> dict[str, list[str]]:
    """The values of each category among the training rows."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = [one["name"] for one in training_set.features if one["kind"] == "category"]
    rows = pq.read_table(training_set.snapshot(runtime.workspace), columns=names)
    return {name: pc.unique(rows.column(name)).drop_null().to_pylist() for name in names}


def held_out_rows(
    statement: TrainModel, training_set: TrainingSet, own: Trained, runtime: Runtime
) -> JudgingRows:
    """Keep the rows that the training holds out."""
    import duckdb
    import pyarrow as pa

    if own.held_out is None or not len(own.held_out):
        given = "promote_if"
        place = statement.options.value_span(given)
        raise TrainingDataError(
            f"{given} has no rows to judge by: the training rows are too few to hold some out.",
            hint="Raise eval_fraction, or name a table by evaluate_on.",
        ).at(statement.source, place.start, len(place))
    with duckdb.connect() as connection:
        connection.register("held_out", pa.table({"file_row_number": own.held_out}))
        rows = (
            f"{training_set.rows_sql(own.path)} "
            "WHERE file_row_number IN (SELECT h.file_row_number FROM held_out h)"
        )
        fingerprint = runtime.warehouse.fingerprint(connection, rows)
        path = runtime.workspace.kept(f"{fingerprint}.parquet")
        write_snapshot(connection, f"({rows})", path, training_set.reading.order)
    return JudgingRows(path, fingerprint, len(own.held_out), "those held out")


def leak_of(frozen: JudgingRows, reading: Reading, memory: Memory) -> Leak:
    import duckdb

    with duckdb.connect() as connection:
        return rows_seen(connection, f"read_parquet({literal(str(frozen.path))})", reading, memory)


@contextmanager
def staged_rows(frozen: JudgingRows, training_set: TrainingSet, runtime: Runtime) -> Iterator[Stage]:
    """The kept rows as a stage of their own."""
    import duckdb

    with scratch_database(runtime.workspace.snapshots) as path, duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE rows AS {training_set.rows_sql(frozen.path)}")
        yield Stage(connection, describe(connection, "rows"), str(path), frozen.rows)
