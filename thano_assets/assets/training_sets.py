"""Training sets: the rows of a BUILD MODEL, checked and kept as a Parquet snapshot.

The snapshot's name is its fingerprint, its rows stand in an order of their own (by a hash of
the text), so the same rows in any order are the same file and train the same model.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thano_assets.assets.relations import find_column, staged, text_column
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.errors import ThanoError, TrainingDataError, WorkspaceError
from thano_assets.graph import Node
from thano_assets.resources.warehouse import Column, literal, quote
from thano_assets.resources.workspace import Workspace
from thano_assets.sql.statements import BuildModel, FitModel
from thano_assets.system import write_atomically

if TYPE_CHECKING:
    import duckdb

_LISTED_CLASSES = 12
_POINTERS = "training_sets"


@dataclass(frozen=True)
class TrainingSet:
    """Where the rows of a model are and what is known about them.

    Attributes:
        fingerprint: Of the rows, free of their order.
        rows: Rows that have a text and a label.
        classes: The labels as text, in the order of their own type.
        label_type: The DuckDB type of the label column.
        text_col: Name of the text column in the query.
        label_col: Name of the label column in the query.
    """

    fingerprint: str
    rows: int
    classes: list[str]
    label_type: str
    text_col: str
    label_col: str

    def snapshot(self, workspace: Workspace) -> Path:
        """The Parquet file with the columns ``text`` and ``label`` (both VARCHAR)."""
        return workspace.kept(f"{self.fingerprint}.parquet")

    def save(self, workspace: Workspace, model: str) -> None:
        """Make this the training set that the model's next training reads."""
        # What is known about the rows stands beside them; the model's own file only names them, so a
        # training that runs at the same time for the same model cannot mix the two up.
        text = json.dumps(asdict(self), ensure_ascii=False, indent=1)
        write_atomically(workspace.snapshots / f"{self.identity}.json", text)
        write_atomically(_pointer(workspace, model), json.dumps({"training_set": self.identity}))

    @property
    def identity(self) -> str:
        """Names the rows and how they were read: the fingerprint and the columns' names and label type."""
        return identity_of(self.fingerprint, self.text_col, self.label_col, self.label_type)

    @classmethod
    def load(cls, workspace: Workspace, model: str, identity: str | None = None) -> TrainingSet:
        """The training set called ``identity``, by default the one that was kept last for ``model``.

        Raises:
            WorkspaceError: there is none.
        """
        try:
            if identity is None:
                pointer = workspace.kept(f"{_POINTERS}/{model}.json")
                identity = json.loads(pointer.read_text(encoding="utf-8"))["training_set"]
            return cls(**json.loads(workspace.kept(f"{identity}.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise WorkspaceError(
                f"The training set of {model} has not been made yet.",
                hint=f"Materialize training_sets/{model} together with models/{model}.",
            ) from None

    @classmethod
    def present(cls, workspace: Workspace, model: str) -> bool:
        """Whether a training set and its snapshot are there."""
        try:
            return cls.load(workspace, model).snapshot(workspace).is_file()
        except WorkspaceError:
            return False

    @classmethod
    def forget(cls, workspace: Workspace, model: str) -> None:
        """Let go of the model's training set; snapshots stay for versions that were trained on them."""
        _pointer(workspace, model).unlink(missing_ok=True)


def identity_of(fingerprint: str, text_col: str, label_col: str, label_type: str) -> str:
    """See :attr:`TrainingSet.identity`."""
    read_as = f"{text_col}\n{label_col}\n{label_type}"
    return f"{fingerprint}-{hashlib.sha256(read_as.encode()).hexdigest()[:8]}"


def write_snapshot(connection: duckdb.DuckDBPyConnection, relation: str, target: Path) -> None:
    """Keep the rows of ``relation`` (columns text and label) in an order of their own, once."""
    if target.is_file():
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        connection.execute(
            f"COPY (FROM {relation} ORDER BY md5(text), text, label) TO {literal(str(temporary))} "
            "(FORMAT parquet, COMPRESSION zstd)"
        )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _pointer(workspace: Workspace, model: str) -> Path:
    return workspace.snapshots / _POINTERS / f"{model}.json"


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Run the model's query, check its rows and keep them.

    Raises:
        UnknownColumn, ColumnTypeError: ``text_col`` or ``label_col`` do not fit the query.
        TrainingDataError: no rows, NULL labels, one class only, too few rows; says the counts.
    """
    statement = node.entry.statement
    assert isinstance(statement, (BuildModel, FitModel))
    workspace = runtime.workspace
    with staged(statement.query, runtime) as stage:
        text = text_column(stage.columns, statement)
        label = find_column(stage.columns, statement, "label_col")
        connection = stage.connection
        text_sql, label_sql = f"CAST({quote(text.name)} AS VARCHAR)", f"CAST({quote(label.name)} AS VARCHAR)"
        connection.execute(
            "CREATE VIEW usable AS SELECT * FROM rows "
            f"WHERE {text_sql} IS NOT NULL AND trim({text_sql}) <> ''"
        )
        connection.execute(f"CREATE VIEW training AS {training_rows('rows', text, label)}")
        counts: list[tuple[str | None, int]] = connection.execute(
            f"SELECT {label_sql}, count(*) FROM usable "
            f"GROUP BY {quote(label.name)} ORDER BY {quote(label.name)}"
        ).fetchall()
        _check(statement, stage.count, label, counts)
        rows = sum(count for _, count in counts)
        fingerprint = runtime.warehouse.fingerprint(connection, "training")
        training_set = TrainingSet(
            fingerprint=fingerprint,
            rows=rows,
            classes=[str(name) for name, _ in counts],
            label_type=label.type,
            text_col=text.name,
            label_col=label.name,
        )
        target = training_set.snapshot(workspace)
        write_snapshot(connection, "training", target)
        shown = connection.sql(
            "SELECT left(text, 200) AS text, label FROM training LIMIT 10"
        ).to_arrow_table()
        skipped = stage.count - rows
    training_set.save(workspace, node.name)
    outcome = Outcome(
        data_version=training_set.identity,
        summary=f"{rows:,} rows, {len(counts)} classes",
        rows=rows,
        columns=[Column("text", "VARCHAR"), Column("label", "VARCHAR")],
        preview=shown,
        facts={
            "training set": training_set.identity,
            "snapshot": str(target),
            "label type": label.type,
            "classes": len(counts),
            "rows per class": ", ".join(f"{name}: {count:,}" for name, count in counts[:_LISTED_CLASSES]),
        },
        details={"training_set": training_set.identity},
    )
    if skipped:
        outcome.warn(runtime.progress, f"{skipped:,} rows without text were left out of the training set.")
    return outcome


def training_rows(relation: str, text: Column, label: Column) -> str:
    """SQL for the rows of ``relation`` that a model is trained on: ``text`` and ``label``, both VARCHAR."""
    text_sql = f"CAST({quote(text.name)} AS VARCHAR)"
    return (
        f"SELECT {text_sql} AS text, CAST({quote(label.name)} AS VARCHAR) AS label FROM {relation} "
        f"WHERE {text_sql} IS NOT NULL AND trim({text_sql}) <> ''"
    )


def _check(
    statement: BuildModel | FitModel, total: int, label: Column, counts: list[tuple[str | None, int]]
) -> None:
    rows = sum(count for _, count in counts)
    error: ThanoError | None = None
    nulls = sum(count for name, count in counts if name is None)
    classes = [(name, count) for name, count in counts if name is not None]
    listed = ", ".join(f"{name}: {count:,}" for name, count in classes[:_LISTED_CLASSES])
    if total == 0:
        error = TrainingDataError(
            "The query gives 0 rows.", hint="A model needs rows with a text and a label."
        )
    elif rows == 0:
        error = TrainingDataError(
            f"None of the query's {total:,} rows has a text.", hint="Choose another text_col."
        )
    elif nulls:
        error = TrainingDataError(
            f"{nulls:,} of {rows:,} rows have NULL in the label column {label.name}.",
            hint=f"Leave them out with WHERE {label.name} IS NOT NULL.",
        )
    elif len(classes) == 1:
        error = TrainingDataError(
            f"All {rows:,} rows have the same label in {label.name} ({classes[0][0]}).",
            hint="A classifier needs at least two classes.",
        )
    else:
        fraction = float(statement.options.value("eval_fraction"))
        needed = 2 * len(classes) if fraction > 0 else len(classes)
        if rows < needed:
            error = TrainingDataError(
                f"{rows:,} rows are too few for {len(classes)} classes ({listed}).",
                hint=f"Give at least {needed} rows"
                + (", or eval_fraction=0 to train on all of them." if fraction > 0 else "."),
            )
    if error is not None:
        raise error.at(statement.source, statement.query.span.start)
