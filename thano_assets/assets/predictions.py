"""Prediction tables: the query's rows in the query's order, with what the model says of each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from thano_assets.assets.relations import find_column, refuse_column, staged, text_column
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.scoring import answering_version, probabilities
from thano_assets.assets.tables import replace_from_stage
from thano_assets.graph import Node
from thano_assets.resources.warehouse import literal, quote
from thano_assets.sql.statements import CreateTableAs, Predict

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from thano_assets.resources.registry import ModelVersion


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Predict every row of the statement's query and keep the rows as a table.

    Raises:
        UnknownModel: the registry has no such version.
        UnknownColumn, ColumnTypeError, InvalidOption: the options do not fit the query's columns.
    """
    started = time.perf_counter()
    statement = node.entry.statement
    assert isinstance(statement, CreateTableAs)
    predict = statement.body
    assert isinstance(predict, Predict)
    value = predict.options.value
    version = answering_version(predict, runtime)
    result_col = str(value("result_col"))
    added = [result_col, "probability", "probabilities"] if value("proba") else [result_col]
    kept = Outcome(data_version="", summary="")
    with staged(predict.query, runtime) as stage:
        text = text_column(stage.columns, predict)
        truth = find_column(stage.columns, predict, "label_col") if predict.options.get("label_col") else None
        refuse_column(stage.columns, predict, added)
        classes = version.classes
        cursor = stage.connection.cursor()
        cursor.execute(
            f"CREATE TABLE predictions (label VARCHAR, probability DOUBLE, p DOUBLE[{len(classes)}])"
        )
        for window in probabilities(stage, text.name, version, value("batch_size"), runtime, kept):
            _append(cursor, window, classes)
        unanswered, right = _counts(cursor, truth.name if truth else None)
        cursor.close()
        stage.connection.close()  # the warehouse attaches the file next
        outcome = replace_from_stage(
            node, runtime, stage.path, _select(version, result_col, added, skip=value("on_error") == "skip")
        )
    seconds = time.perf_counter() - started
    answered = stage.count - unanswered
    outcome.warnings = kept.warnings
    outcome.facts = {
        "model": f"{version.name} VERSION {version.version}",
        "rows predicted": answered,
        "seconds": round(seconds, 1),
        "rows per second": round(answered / seconds, 1) if seconds else 0.0,
        **kept.facts,
    }
    outcome.links = {"MLflow model": runtime.registry.model_url(version.name, version.version)}
    outcome.summary = f"{answered:,} rows predicted by {version.name} version {version.version}"
    if truth is not None and answered:
        outcome.facts["accuracy"] = right / answered
        outcome.summary += f", {right:,} of them right ({right / answered:.1%})"
    if unanswered:
        outcome.warn(
            runtime.progress,
            f"{unanswered:,} rows have no text"
            + (" and were left out." if value("on_error") == "skip" else f": their {result_col} is NULL."),
        )
    return outcome


def _append(cursor: duckdb.DuckDBPyConnection, window: np.ndarray, classes: list[str]) -> None:
    """Add the predictions of one window, an array of shape (rows, classes)."""
    import numpy as np
    import pyarrow as pa

    known = ~np.isnan(window[:, 0])
    best = np.where(known, np.nan_to_num(window, nan=-1.0).argmax(axis=1), 0)
    names = np.asarray(classes, dtype=object)[best]
    top = window[np.arange(len(window)), best].astype(np.float64)
    missing = ~known
    values = pa.array(window.astype(np.float64).ravel())
    batch = pa.table(
        {
            "label": pa.array(names, pa.string(), mask=missing),
            "probability": pa.array(top, mask=missing),
            "p": pa.FixedSizeListArray.from_arrays(values, len(classes)),
        }
    )
    cursor.register("answers", batch)
    cursor.execute("INSERT INTO predictions SELECT * FROM answers")
    cursor.unregister("answers")


def _counts(cursor: duckdb.DuckDBPyConnection, truth: str | None) -> tuple[int, int]:
    """Rows without an answer, and rows whose answer is the true label."""
    right = f"count(*) FILTER (WHERE p.label = CAST(r.{quote(truth)} AS VARCHAR))" if truth else "0"
    found = cursor.execute(
        f"SELECT count(*) FILTER (WHERE p.label IS NULL), {right} FROM rows r POSITIONAL JOIN predictions p"
    ).fetchall()
    return int(found[0][0]), int(found[0][1])


def _select(version: ModelVersion, result_col: str, added: list[str], *, skip: bool) -> str:
    """The query's columns and the predictions, labels in the type that they were trained with."""
    type_ = version.label_type
    columns = [f"r.*, CAST(p.label AS {type_}) AS {quote(result_col)}"]
    if len(added) > 1:
        listed = ", ".join(literal(name) for name in version.classes)
        columns.append("p.probability AS probability")
        columns.append(
            "CASE WHEN p.label IS NULL THEN NULL "
            f"ELSE map(CAST([{listed}] AS {type_}[]), CAST(p.p AS DOUBLE[])) END AS probabilities"
        )
    where = " WHERE p.label IS NOT NULL" if skip else ""
    return f"SELECT {', '.join(columns)} FROM stage.rows r POSITIONAL JOIN stage.predictions p{where}"
