"""Embedding tables: the query's rows in the query's order, with the vector of each one's text."""

from __future__ import annotations

import time

from thano_assets.assets.predictions.embedders import EmbeddingModel
from thano_assets.assets.predictions.predictions import comment
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.queries import refuse_column, staged, text_column
from thano_assets.assets.tables.tables import replace_from_stage
from thano_assets.graph import Node
from thano_assets.resources.warehouse import quote
from thano_assets.sql.statements import Convert, CreateTableAs


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Embed the text of every row of the statement's query and keep the rows as a table.

    Texts that the model has embedded before do not go through it again.

    Raises:
        UnknownModel, UnknownBaseModel, BaseModelUnavailable: there is no such model, or it cannot be had.
        UnknownColumn, ColumnTypeError, InvalidOption: the options do not fit the query's columns.
    """
    started = time.perf_counter()
    statement = node.entry.statement
    assert isinstance(statement, CreateTableAs)
    convert = statement.body
    assert isinstance(convert, Convert)
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
