"""The kind of training sets: of classifiers and models of tables, and of base models."""

from __future__ import annotations

from collections.abc import Sequence

from thano_assets.assets.kind import AskedModel, AssetKind, shown_as
from thano_assets.assets.models import text_sets, training_sets
from thano_assets.assets.models.features import training_columns
from thano_assets.assets.models.judging_rows import check_evaluation_table
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.column_lineage import ColumnLineage, of_rows
from thano_assets.graph import Node, NodeKind
from thano_assets.graph.build import makes_base, row_options
from thano_assets.resources.warehouse import Column
from thano_assets.sql.statements import TrainModel


def _materialize(node: Node, runtime: Runtime) -> Outcome:
    return (text_sets if makes_base(node.entry) else training_sets).materialize(node, runtime)


def _description(node: Node) -> str:
    if makes_base(node.entry):
        return f"The texts that the base model {node.name} is pre-trained on, kept as Parquet."
    return f"The checked rows that the model {node.name} is trained on, kept as Parquet."


def _lineage(node: Node, columns: Sequence[str], runtime: Runtime) -> ColumnLineage:
    statement = node.statement(TrainModel)
    rows = of_rows(statement.query, None, runtime)
    if statement.task:
        learnt = {name.casefold() for name in columns}
        return {name: sources for name, sources in rows.items() if name.casefold() in learnt}
    folded = {name.casefold(): sources for name, sources in rows.items()}
    names = [str(statement.options.value(name)).casefold() for name in row_options(statement)]
    found = {column: folded.get(name) for column, name in zip(("text", "label"), names, strict=False)}
    return {column: sources for column, sources in found.items() if sources}


def _check_columns(
    statement: TrainModel, columns: list[Column], asked: AskedModel | None, runtime: Runtime
) -> None:
    training_columns(statement, columns)
    check_evaluation_table(statement, runtime, columns)


KIND = AssetKind(
    NodeKind.TRAINING_SET,
    _materialize,
    description=_description,
    icons=shown_as("parquet", "dataset"),
    lineage=_lineage,
    check_columns=_check_columns,
)
