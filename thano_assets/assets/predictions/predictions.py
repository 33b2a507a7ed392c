"""Prediction tables: the query's rows in the query's order, with what the model says of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thano_assets.assets.kind import AskedModel, AssetKind, Reads, answering, described, shown_as
from thano_assets.assets.models.features import (
    TextReading,
    asked_columns,
    dates_not_read,
    statement_columns,
    truth_column,
)
from thano_assets.assets.models.labels import class_of, present_label
from thano_assets.assets.predictions import explanations
from thano_assets.assets.predictions.prediction_cache import PredictionCache, unanswered
from thano_assets.assets.predictions.scoring import answering_version, outputs, with_more_memory
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.column_lineage import ColumnLineage, of_rows, with_predictions
from thano_assets.assets.tables.queries import find_column, refuse_column, staged, text_column
from thano_assets.assets.tables.tables import replace_from_stage
from thano_assets.graph import Node, NodeKind
from thano_assets.resources.dagster_home import INFERENCE
from thano_assets.resources.warehouse import describe, literal, quote
from thano_assets.results import counted
from thano_assets.sql.statements import (
    ClassifierQuery,
    CreateTableAs,
    Evaluate,
    ExplainPredict,
    Predict,
    Statement,
)

if TYPE_CHECKING:
    import duckdb

    from thano_assets.resources.model_version import ModelVersion
    from thano_assets.resources.warehouse import Column


#: Longest part of a statement that the table's comment shows, in characters.
_LONGEST_COMMENT = 300


def added_columns(predict: Predict | ExplainPredict, version: ModelVersion | None = None) -> list[str]:
    """Names of the columns that PREDICT or EXPLAIN PREDICT adds to those of its query.

    ``version`` answers; without it, a classifier.
    """
    value = predict.options.value
    added = [str(value("result_col"))]
    if value("proba") and (version is None or version.task != "regression"):
        added += ["probability", "probabilities"]
    if predict.options.get("version_col"):
        added.append(str(value("version_col")))
    if isinstance(predict, ExplainPredict):
        added.append(explanations.COLUMN)
    return added


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Predict every row of the statement's query and keep the rows as a table.

    Texts that the answering version has answered before do not go through the model again. EXPLAIN PREDICT
    also says which words moved each prediction.

    Raises:
        UnknownModel: the registry has no such version.
        UnknownColumn, ColumnTypeError, InvalidOption: the options do not fit the query's columns.
    """
    started = time.perf_counter()
    statement = node.entry.statement
    assert isinstance(statement, CreateTableAs)
    predict = statement.body
    assert isinstance(predict, (Predict, ExplainPredict))
    value = predict.options.value
    version = answering_version(predict, runtime)
    who = f"{version.name} VERSION {version.version}"
    kept = Outcome(data_version="", summary="")
    with staged(predict.query, runtime) as stage:
        reading = asked_columns(predict, version, stage.columns)
        truth = truth_column(predict, version, stage.columns)
        added = added_columns(predict, version)
        refuse_column(stage.columns, predict, added)
        relation = outputs(stage, reading, version, value("batch_size"), runtime, kept)
        with stage.connection.cursor() as cursor:
            with_more_memory(cursor, lambda: cursor.execute(_labelled(relation, version)))
            unanswered, judged, right, off = _counts(cursor, truth, version)
            spoilt = dates_not_read("rows", reading)
            not_dates = cursor.execute(spoilt).fetchall() if spoilt else []
        if isinstance(predict, ExplainPredict) and isinstance(reading, TextReading):
            explanations.explain(stage, reading.column, version, predict, runtime, kept)
        stage.connection.close()  # the warehouse attaches the file next
        with runtime.warehouse.write() as connection:
            outcome = replace_from_stage(node, runtime, stage.path, _select(version, predict))
            comment(connection, node, predict, f"Predicted by {who}", added)
    seconds = time.perf_counter() - started
    answers = stage.count - unanswered
    run = kept.facts["rows through the model"]
    outcome.warnings, outcome.texts = kept.warnings, kept.texts
    outcome.facts = {
        "model": who,
        "rows predicted": answers,
        "seconds": round(seconds, 1),
        "rows per second": round(answers / seconds, 1) if seconds else 0.0,
        **kept.facts,
    }
    outcome.details = {
        "model": version.name,
        "version": version.version,
        "model_data_version": version.data_version,
        "rows": stage.count,
        "rows_run": kept.facts.get("texts explained", run),
    }
    outcome.links = {"MLflow model": runtime.registry.model_url(version.name, version.version)}
    outcome.summary = f"{answers:,} rows predicted by {version.name} version {version.version}"
    if isinstance(predict, ExplainPredict):
        outcome.summary = explanations.described(version, answers, kept.facts)
    if off is not None:
        outcome.facts["mean absolute error"] = off
        outcome.summary += f", {off:.4g} off on average"
    elif truth is not None and judged:
        outcome.facts["accuracy"] = right / judged
        of = "them" if judged == answers else f"{judged:,}"
        outcome.summary += f", {right:,} of {of} right ({right / judged:.1%})"
    if truth is not None and judged < answers:
        rows = counted(answers - judged, "row")
        told = f"{rows} without a label in {truth.name} count neither right nor wrong."
        outcome.warn(runtime.progress, told)
    for name, count in not_dates:
        outcome.warn(runtime.progress, f"{count:,} values of {name} are no dates and count as missing.")
    if kept.facts.get("texts known before") and isinstance(predict, Predict):
        outcome.summary += f"; {run:,} texts were new to it" if run else "; it knew all texts"
    if unanswered:
        outcome.warn(
            runtime.progress,
            f"{unanswered:,} rows have no text"
            + (
                " and were left out."
                if value("on_error") == "skip"
                else f": their {value('result_col')} is NULL."
            ),
        )
    return outcome


def _labelled(answered_rows: str, version: ModelVersion) -> str:
    """SQL that makes the stage's table ``predictions``: a row for each row, in the rows' order."""
    if version.task == "regression":
        columns = "p[1] AS label, p"
    else:
        names = ", ".join(literal(name) for name in version.classes)
        columns = (
            f"([{names}])[list_position(p, list_max(p))] AS label, "
            "CAST(list_max(p) AS DOUBLE) AS probability, p"
        )
    return f"CREATE TABLE predictions AS SELECT {columns} FROM ({answered_rows}) ORDER BY number"


def _counts(
    cursor: duckdb.DuckDBPyConnection, truth: Column | None, version: ModelVersion
) -> tuple[int, int, int, float | None]:
    """Rows without an answer, those with an answer and a label, those right, and how far numbers are off."""
    right, off, judged = "0", "NULL", "0"
    if truth is not None:
        numbers = version.task == "regression"
        label = present_label(f"r.{quote(truth.name)}", truth.type, numbers=numbers)
        judged = f"count(*) FILTER (WHERE p.label IS NOT NULL AND {label} IS NOT NULL)"
        if numbers:
            off = f"avg(abs(p.label - {label}))"
        else:
            known = class_of(f"r.{quote(truth.name)}", truth.type, version.classes, version.label_type)
            right = f"count(*) FILTER (WHERE p.label = {known})"
    found = cursor.execute(
        f"SELECT count(*) FILTER (WHERE p.label IS NULL), {judged}, {right}, {off} "
        "FROM rows r POSITIONAL JOIN predictions p"
    ).fetchall()
    return int(found[0][0]), int(found[0][1]), int(found[0][2]), found[0][3]


def _select(version: ModelVersion, predict: Predict | ExplainPredict) -> str:
    """The query's columns and the predictions, labels in the type that they were trained with."""
    value, type_ = predict.options.value, version.label_type
    if version.task == "regression":
        type_ = "DOUBLE"
    columns = [f"r.*, CAST(p.label AS {type_}) AS {quote(str(value('result_col')))}"]
    if value("proba") and version.task != "regression":
        listed = ", ".join(literal(name) for name in version.classes)
        columns.append("p.probability AS probability")
        columns.append(
            "CASE WHEN p.label IS NULL THEN NULL "
            f"ELSE map(CAST([{listed}] AS {type_}[]), CAST(p.p AS DOUBLE[])) END AS probabilities"
        )
    if predict.options.get("version_col"):
        number = f"CASE WHEN p.label IS NOT NULL THEN CAST({version.version} AS INTEGER) END"
        columns.append(f"{number} AS {quote(str(value('version_col')))}")
    where = " WHERE p.label IS NOT NULL" if value("on_error") == "skip" else ""
    if isinstance(predict, ExplainPredict):
        return explanations.select_from(columns, where)
    return f"SELECT {', '.join(columns)} FROM stage.rows r POSITIONAL JOIN stage.predictions p{where}"


def comment(
    connection: duckdb.DuckDBPyConnection, node: Node, statement: Statement, by: str, columns: list[str]
) -> None:
    """Say in the warehouse itself who answered; every DuckDB program shows such comments.

    Args:
        connection: one that writes.
        node: the table.
        statement: what asked.
        by: who answered, as ``Predicted by m VERSION 1``.
        columns: those that hold the answers.
    """
    text = " ".join(statement.text.split()).rstrip("; ")
    if len(text) > _LONGEST_COMMENT:
        text = text[: _LONGEST_COMMENT - 1] + "…"
    table = quote(node.name)
    connection.execute(f"COMMENT ON TABLE {table} IS {literal(f'{by}: {text}')}")
    who = by.partition(" by ")[2]
    for name in columns:
        connection.execute(f"COMMENT ON COLUMN {table}.{quote(name)} IS {literal(who)}")


def check_asked(
    statement: ClassifierQuery, columns: list[Column], asked: AskedModel | None, runtime: Runtime
) -> None:
    """Check the columns of a query against the model that is asked about them, as far as it is known."""
    assert asked is not None
    if asked.version is not None:
        asked_columns(statement, asked.version, columns)
        truth_column(statement, asked.version, columns)
    elif not asked.of_tables:
        given = asked.made_by.options.filled() if asked.made_by is not None else {}
        text_column(columns, statement, given.get("text_col"))
        if isinstance(statement, Evaluate) or statement.options.get("label_col"):
            find_column(columns, statement, "label_col", given.get("label_col"))


def _check_columns(
    statement: Predict | ExplainPredict, columns: list[Column], asked: AskedModel | None, runtime: Runtime
) -> None:
    check_asked(statement, columns, asked, runtime)
    version = asked.version if asked is not None else None
    refuse_column(columns, statement, added_columns(statement, version))


def _lineage(node: Node, columns: Sequence[str], runtime: Runtime) -> ColumnLineage:
    statement = node.entry.statement.inner
    assert isinstance(statement, (Predict, ExplainPredict))
    version = answering(statement, runtime)
    every = added_columns(statement, version)
    number = statement.options.get("version_col")
    kept = [column for column in columns if column not in every]
    read = statement_columns(statement, version, kept)
    rows = of_rows(statement.query, kept, runtime)
    return with_predictions(rows, read, [name for name in every if name != number])


def texts_to_run(statement: ClassifierQuery, reads: Reads, runtime: Runtime) -> int | None:
    """Texts that the answering version has not seen; of a model of tables, which keeps nothing, all rows."""
    version = answering(statement, runtime)
    if version is None:
        return None
    if version.task:
        return reads.count(f"({reads.sql})")
    text = text_column(
        describe(reads.connection, f"({reads.sql})"), statement, version.params.get("text_col")
    )
    if isinstance(statement, ExplainPredict):
        return reads.count(f"(SELECT DISTINCT {quote(text.name)} FROM ({reads.sql}))")
    return unanswered(reads.connection, reads.sql, text.name, PredictionCache.of(version, runtime.workspace))


def _kind(kind: NodeKind, description: str) -> AssetKind:
    return AssetKind(
        kind,
        materialize,
        description=described(description),
        icons=shown_as("duckdb", "huggingface"),
        pool=INFERENCE,
        lineage=_lineage,
        check_columns=_check_columns,
        texts_to_run=texts_to_run,
    )


KIND = _kind(NodeKind.PREDICTION, "The table {name}: the query's rows with the model's predictions.")
EXPLANATION = _kind(
    NodeKind.EXPLANATION, "The table {name}: the query's rows, predictions, and the words behind them."
)
