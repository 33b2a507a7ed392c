"""Evaluation tables: how well a model's answers agree with a column of true labels."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thano_assets.assets.kind import AssetKind, described, shown_as
from thano_assets.assets.models.features import asked_columns, truth_column
from thano_assets.assets.models.labels import class_of, missing_words, present_label
from thano_assets.assets.models.leakage import Leak, Memory, rows_seen
from thano_assets.assets.predictions.predictions import check_asked, texts_to_run
from thano_assets.assets.predictions.scoring import answering_version, probabilities
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.queries import staged
from thano_assets.assets.tables.tables import replace_from_stage
from thano_assets.catalog.entries import automatic_name
from thano_assets.errors import TrainingDataError
from thano_assets.graph import Node, NodeKind
from thano_assets.resources.dagster_home import INFERENCE
from thano_assets.resources.warehouse import quote
from thano_assets.sql.statements import Evaluate

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from thano_assets.assets.tables.queries import Stage
    from thano_assets.resources.registry import ModelVersion
    from thano_assets.resources.warehouse import Column


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Score the model on the statement's rows and keep the report as a table.

    Raises:
        UnknownModel: the registry has no such version.
        UnknownColumn, ColumnTypeError: the options do not fit the query's columns.
        TrainingDataError: no rows to score, NULL labels, labels that the model does not know, or, with
            ``strict=True``, rows that it was trained on.
    """
    import numpy as np

    started = time.perf_counter()
    evaluate = node.statement(Evaluate)
    version = answering_version(evaluate, runtime)
    kept = Outcome(data_version="", summary="")
    with staged(evaluate.query, runtime) as stage:
        reading = asked_columns(evaluate, version, stage.columns)
        label = truth_column(evaluate, version, stage.columns)
        assert label is not None
        true = _true_label(label, version)
        _check(evaluate, stage, label, true, version)
        leak = rows_seen(stage.connection, "rows", reading, Memory.of(version, runtime))
        _check_leak(evaluate, leak, version)
        truth = stage.connection.execute(f"SELECT {true} FROM rows").fetchall()
        windows = list(
            probabilities(stage, reading, version, evaluate.options.value("batch_size"), runtime, kept)
        )
        scores: np.ndarray = np.concatenate(windows)
        known = ~np.isnan(scores[:, 0])
        labels = [row[0] for row, answered in zip(truth, known, strict=True) if answered]
        scores = scores[known]
        if not labels:
            raise TrainingDataError(
                f"None of the query's {stage.count:,} rows has a text.", hint="Choose another text_col."
            ).at(evaluate.source, evaluate.query.span.start)
        judged = _judged(labels, scores, version, evaluate.options.value("report"))
        cursor = stage.connection.cursor()
        cursor.register("report_rows", judged.report)
        cursor.execute("CREATE TABLE report AS SELECT * FROM report_rows")
        cursor.close()
        stage.connection.close()  # the warehouse attaches the file next
        outcome = replace_from_stage(node, runtime, stage.path, "SELECT * FROM stage.report")
    figures_by_name = judged.figures
    outcome.warnings = kept.warnings
    outcome.facts = {
        **{name: value for name, value in figures_by_name.items() if value is not None},
        **({"mistakes": judged.mistakes} if judged.mistakes else {}),
        "rows scored": len(labels),
        "rows seen in training": leak.fact(),
        "model": f"{version.name} VERSION {version.version}",
        "seconds": round(time.perf_counter() - started, 1),
        **kept.facts,
    }
    outcome.details = {
        "model": version.name,
        "version": version.version,
        "model_data_version": version.data_version,
        "rows": len(labels),
        "rows_run": kept.facts["rows through the model"],
    }
    outcome.pictures = judged.pictures
    outcome.links = {"MLflow model": runtime.registry.model_url(version.name, version.version)}
    outcome.summary = f"{version.name} version {version.version}: {judged.headline} on {len(labels):,} rows"
    if told := leak.sentence(f"{version.name} VERSION {version.version}"):
        if leak.seen:
            outcome.warn(runtime.progress, told)
        else:  # the pre-built model, for one: nothing that a person could change
            outcome.summary += f". {told}"
    if not known.all():
        outcome.warn(runtime.progress, f"{int((~known).sum()):,} rows have no text and were not scored.")
    if node.name != automatic_name(evaluate):
        try:
            _show_on_version(node, version, judged, len(labels), outcome.data_version, runtime)
        except Exception as error:  # the table is made; a server that does not answer takes nothing from it
            outcome.warn(runtime.progress, f"MLflow does not show this evaluation: {error}")
    return outcome


def _show_on_version(
    node: Node, version: ModelVersion, judged: _Judgement, rows: int, digest: str, runtime: Runtime
) -> None:
    """Let MLflow show what a version scored, on its page and in its run, under the name of the table.

    A bare EVALUATE is a question, and leaves nothing there.
    """
    called = re.sub(r"[^\w -]", "_", node.name)[:150]  # what MLflow takes in the name of a metric
    figures = {f"{called}/{name}": value for name, value in judged.figures.items() if value is not None}
    runtime.registry.log_evaluation(version, figures, rows=rows, digest=digest, source=node.name)
    runtime.registry.tag(version, {f"evaluated on {called}": f"{judged.headline} on {rows:,} rows"})


@dataclass(frozen=True)
class _Judgement:
    """The report that was asked for, the summary's figures by name, and the first of them in words."""

    report: pa.Table
    figures: dict[str, float | None]
    headline: str
    pictures: dict[str, bytes]
    mistakes: str | None = None


def _judged(truth: list[Any], says: np.ndarray, version: ModelVersion, report: str) -> _Judgement:
    import numpy as np

    if version.task == "regression":
        from thano_assets.learning.tables.report import regression_table, residuals

        numbers, found = np.asarray(truth, dtype=np.float64), says[:, 0]
        summary = regression_table(numbers, found)
        figures = _by_name(summary)
        headline = f"RMSE {figures['RMSE']:.4g}, MAE {figures['MAE']:.4g}"
        if figures["R2"] is not None:
            headline += f", R2 {figures['R2']:.3f}"
        return _Judgement(summary, figures, headline, {"residuals": residuals(numbers, found)})
    from thano_assets.learning import metrics
    from thano_assets.learning.figures import confusion_matrix

    whole = metrics.evaluate(truth, says, version.classes, report=report)
    figures = _by_name(metrics.evaluate(truth, says, version.classes, report="summary"))
    confusion = metrics.confusion(metrics.class_indices(truth, version.classes), says)
    picture = confusion_matrix(confusion, version.classes)
    return _Judgement(
        whole,
        figures,
        f"accuracy {figures['Accuracy']:.3f}",
        {"confusion matrix": picture},
        metrics.mistakes(confusion, version.classes),
    )


def _by_name(summary: pa.Table) -> dict[str, float | None]:
    return dict(zip(summary.column("metric").to_pylist(), summary.column("score").to_pylist(), strict=True))


def _check_leak(evaluate: Evaluate, leak: Leak, version: ModelVersion) -> None:
    """With ``strict=True``, refuse to measure a model on rows that it was trained on."""
    if not leak.seen or not evaluate.options.value("strict"):
        return
    place = evaluate.options.place("strict")
    raise TrainingDataError(
        f"{leak.seen:,} of the query's {leak.rows:,} rows are among those that "
        f"{version.name} VERSION {version.version} was trained on.",
        hint="Choose rows that it has not seen, or leave out strict=True.",
    ).at(evaluate.source, place.start, len(place))


def _true_label(label: Column, version: ModelVersion) -> str:
    """SQL of the true label: a class of the version, or a number; NULL where it is missing."""
    if version.task == "regression":
        return present_label(quote(label.name), label.type, numbers=True)
    return class_of(quote(label.name), label.type, version.classes, version.label_type)


def _check(evaluate: Evaluate, stage: Stage, label: Column, true: str, version: ModelVersion) -> None:
    numbers = version.task == "regression"
    value = f"CASE WHEN {true} IS NOT NULL THEN '' END" if numbers else true
    counts = stage.connection.execute(
        f"SELECT CAST({value} AS VARCHAR), count(*) FROM rows GROUP BY 1 ORDER BY 1"
    ).fetchall()
    nulls = sum(count for name, count in counts if name is None)
    strangers = [
        f"{name}: {count:,}"
        for name, count in counts
        if not numbers and name is not None and name not in version.classes
    ]
    missing, hint = missing_words(label.name, label.type)
    error = None
    if not counts:
        error = TrainingDataError("The query gives 0 rows.", hint="There is nothing to score the model on.")
    elif nulls:
        error = TrainingDataError(
            f"{nulls:,} of {stage.count:,} rows have {missing} in the label column {label.name}.",
            hint=hint,
        )
    elif strangers:
        error = TrainingDataError(
            f"The column {label.name} has labels that "
            f"{version.name} was not trained on ({', '.join(strangers[:8])}).",
            hint=f"Its classes are: {', '.join(version.classes[:12])}.",
        )
    if error is not None:
        raise error.at(evaluate.source, evaluate.query.span.start)


KIND = AssetKind(
    NodeKind.EVALUATION,
    materialize,
    description=described("The table {name}: how well the model's answers agree with the true labels."),
    icons=shown_as("duckdb", "report"),
    pool=INFERENCE,
    check_columns=check_asked,
    texts_to_run=texts_to_run,
)
