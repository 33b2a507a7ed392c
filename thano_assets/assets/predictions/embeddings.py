"""Embedding tables: the query's rows in the query's order, with the vector of each one's text."""

from __future__ import annotations

import time
from collections.abc import Sequence

from thano_assets.assets.kind import AskedModel, AssetKind, Reads, described, shown_as
from thano_assets.assets.predictions.embedders import EmbeddingModel
from thano_assets.assets.predictions.prediction_cache import unanswered
from thano_assets.assets.predictions.predictions import comment
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.column_lineage import ColumnLineage, with_vectors
from thano_assets.assets.tables.queries import refuse_column, staged, text_column
from thano_assets.assets.tables.tables import replace_from_stage
from thano_assets.graph import Node, NodeKind
from thano_assets.resources.dagster_home import INFERENCE
from thano_assets.resources.warehouse import Column, describe, quote
from thano_assets.sql.statements import Convert


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Embed the text of every row of the statement's query and keep the rows as a table.

    Texts that the model has embedded before do not go through it again.

    Raises:
        UnknownModel, UnknownBaseModel, BaseModelUnavailable: there is no such model, or it cannot be had.
        UnknownColumn, ColumnTypeError, InvalidOption: the options do not fit the query's columns.
    """
    started = time.perf_counter()
    convert = node.statement(Convert)
    result = str(convert.options.value("result_col"))
    model = EmbeddingModel.of(convert, runtime)
    size = model.size
    kept = Outcome(data_version="", summary="")
    with staged(convert.query, runtime) as stage:
        text = text_column(stage.columns, convert)
        refuse_column(stage.columns, convert, [result])
        relation = model.vectors(stage, text.name, convert.options.value("batch_size"), runtime, kept)
        with stage.connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TABLE vectors AS SELECT CAST(p AS FLOAT[{size}]) AS v "
                f"FROM ({relation}) ORDER BY number"
            )
            missing = int(cursor.execute("SELECT count(*) - count(v) FROM vectors").fetchall()[0][0])
        stage.connection.close()  # the warehouse attaches the file next
        select = f"SELECT r.*, p.v AS {quote(result)} FROM stage.rows r POSITIONAL JOIN stage.vectors p"
        with runtime.warehouse.write() as connection:
            outcome = replace_from_stage(node, runtime, stage.path, select)
            comment(connection, node, convert, f"Embedded by {model.who}", [result])
    seconds = time.perf_counter() - started
    made, run = stage.count - missing, kept.facts["rows through the model"]
    outcome.warnings = kept.warnings
    outcome.facts = {
        **model.told(),
        "rows embedded": made,
        "rows without text": missing,
        "numbers of a vector": size,
        "seconds": round(seconds, 1),
        "rows per second": round(made / seconds, 1) if seconds else 0.0,
        **kept.facts,
    }
    outcome.details = {**model.details(), "rows": stage.count, "rows_run": run}
    outcome.links = model.links(runtime)
    outcome.summary = f"{made:,} rows embedded by {model.who}, {size} numbers each"
    if kept.facts["texts known before"]:
        outcome.summary += f"; {run:,} texts were new to it" if run else "; it knew all texts"
    if missing:
        outcome.warn(runtime.progress, f"{missing:,} rows have no text: their {result} is NULL.")
    return outcome


def _check_columns(
    statement: Convert, columns: list[Column], asked: AskedModel | None, runtime: Runtime
) -> None:
    text_column(columns, statement)
    refuse_column(columns, statement, [str(statement.options.value("result_col"))])


def _lineage(node: Node, columns: Sequence[str], runtime: Runtime) -> ColumnLineage:
    statement = node.statement(Convert)
    return with_vectors(statement, [str(statement.options.value("result_col"))], columns, runtime)


def _texts_to_run(statement: Convert, reads: Reads, runtime: Runtime) -> int:
    text = text_column(describe(reads.connection, f"({reads.sql})"), statement)
    answers = EmbeddingModel.of(statement, runtime, network=False).answers
    return unanswered(reads.connection, reads.sql, text.name, answers)


KIND = AssetKind(
    NodeKind.EMBEDDING,
    materialize,
    description=described("The table {name}: the query's rows with the embedding of each one's text."),
    icons=shown_as("duckdb", "huggingface"),
    pool=INFERENCE,
    lineage=_lineage,
    check_columns=_check_columns,
    texts_to_run=_texts_to_run,
)
