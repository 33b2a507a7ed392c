"""Training sets of base models: the texts of a query, without labels, kept as a Parquet snapshot."""

from __future__ import annotations

from thano_assets.assets.models import training_sets
from thano_assets.assets.models.features import training_columns, training_rows
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.queries import staged
from thano_assets.errors import TrainingDataError
from thano_assets.graph import Node
from thano_assets.resources.warehouse import Column
from thano_assets.sql.statements import BuildModel


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Run the query of a base model and keep its texts; rows without one are left out.

    Raises:
        UnknownColumn, ColumnTypeError: ``text_col`` does not fit the query.
        TrainingDataError: no row has a text.
    """
    statement = node.statement(BuildModel)
    with staged(statement.query, runtime) as stage:
        reading, _ = training_columns(statement, stage.columns)
        connection = stage.connection
        connection.execute(f"CREATE VIEW training AS {training_rows('rows', reading, None)}")
        rows, distinct, characters = connection.execute(
            "SELECT count(*), count(DISTINCT text), coalesce(sum(length(text)), 0) FROM training"
        ).fetchall()[0]
        if not rows:
            raise TrainingDataError(
                f"None of the query's {stage.count:,} rows has a text."
                if stage.count
                else "The query gives 0 rows.",
                hint="Choose another text_col." if stage.count else "Pre-training needs rows with a text.",
            ).at(statement.source, statement.query.span.start)
        found = training_sets.training_set_of(
            runtime.warehouse.fingerprint(connection, "training"), rows, reading, None, []
        )
        target = found.snapshot(runtime.workspace)
        training_sets.write_snapshot(connection, "training", target, "md5(text), text")
        shown = connection.sql("SELECT left(text, 200) AS text FROM training LIMIT 10").to_arrow_table()
    found.save(runtime.workspace, node.name)
    outcome = Outcome(
        data_version=found.identity,
        summary=f"{rows:,} texts without labels",
        rows=rows,
        columns=[Column("text", "VARCHAR")],
        preview=shown,
        facts={
            "training set": found.identity,
            "snapshot": str(target),
            "different texts": distinct,
            "characters": int(characters),
        },
        details={"training_set": found.identity},
    )
    if skipped := stage.count - rows:
        outcome.warn(runtime.progress, f"{skipped:,} rows without text were left out of the training set.")
    return outcome
