"""Prediction tables: the query's rows in the query's order, with what the model says of each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from thano_assets.assets import explanations
from thano_assets.assets.relations import find_column, refuse_column, staged, text_column
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.scoring import answered, answering_version
from thano_assets.assets.tables import replace_from_stage
from thano_assets.graph import Node
from thano_assets.resources.warehouse import literal, quote
from thano_assets.sql.statements import CreateTableAs, ExplainPredict, Predict, Statement

if TYPE_CHECKING:
    import duckdb

    from thano_assets.resources.model_version import ModelVersion


#: Longest part of a statement that the table's comment shows, in characters.
_LONGEST_COMMENT = 300


def added_columns(predict: Predict | ExplainPredict) -> list[str]:
    """Names of the columns that PREDICT or EXPLAIN PREDICT adds to those of its query."""
    value = predict.options.value
    added = [str(value("result_col"))]
    if value("proba"):
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
        text = text_column(stage.columns, predict)
        truth = find_column(stage.columns, predict, "label_col") if predict.options.get("label_col") else None
        refuse_column(stage.columns, predict, added_columns(predict))
        relation = answered(stage, text.name, version, value("batch_size"), runtime, kept)
        with stage.connection.cursor() as cursor:
            cursor.execute(_labelled(relation, version.classes))
            unanswered, right = _counts(cursor, truth.name if truth else None)
        if isinstance(predict, ExplainPredict):
            explanations.explain(stage, text.name, version, predict, runtime, kept)
        stage.connection.close()  # the warehouse attaches the file next
        with runtime.warehouse.write() as connection:
            outcome = replace_from_stage(node, runtime, stage.path, _select(version, predict))
            comment(connection, node, predict, f"Predicted by {who}", added_columns(predict))
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
    if truth is not None and answers:
        outcome.facts["accuracy"] = right / answers
        outcome.summary += f", {right:,} of them right ({right / answers:.1%})"
    if kept.facts["texts known before"] and isinstance(predict, Predict):
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


def _labelled(answered_rows: str, classes: list[str]) -> str:
    """SQL that makes the stage's table ``predictions``: a row for each row, in the rows' order."""
    names = ", ".join(literal(name) for name in classes)
    return (
        f"CREATE TABLE predictions AS SELECT ([{names}])[list_position(p, list_max(p))] AS label, "
        f"CAST(list_max(p) AS DOUBLE) AS probability, p FROM ({answered_rows}) ORDER BY number"
    )


def _counts(cursor: duckdb.DuckDBPyConnection, truth: str | None) -> tuple[int, int]:
    """Rows without an answer, and rows whose answer is the true label."""
    right = f"count(*) FILTER (WHERE p.label = CAST(r.{quote(truth)} AS VARCHAR))" if truth else "0"
    found = cursor.execute(
        f"SELECT count(*) FILTER (WHERE p.label IS NULL), {right} FROM rows r POSITIONAL JOIN predictions p"
    ).fetchall()
    return int(found[0][0]), int(found[0][1])


def _select(version: ModelVersion, predict: Predict | ExplainPredict) -> str:
    """The query's columns and the predictions, labels in the type that they were trained with."""
    value, type_ = predict.options.value, version.label_type
    columns = [f"r.*, CAST(p.label AS {type_}) AS {quote(str(value('result_col')))}"]
    if value("proba"):
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
