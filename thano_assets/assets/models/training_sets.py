"""Training sets: the rows of a BUILD MODEL, checked and kept as a Parquet snapshot.

The snapshot's name is its fingerprint, its rows stand in an order of their own (by a hash of
the text), so the same rows in any order are the same file and train the same model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.assets.models.features import (
    SNAPSHOT_ROW,
    Reading,
    TableReading,
    TextReading,
    dates_not_read,
    label_type_kept,
    training_columns,
    training_rows,
    unread,
)
from thano_assets.assets.models.labels import missing_words, present_label
from thano_assets.assets.runtime import Outcome, Runtime, made_in_this_run
from thano_assets.assets.tables.queries import preview, staged
from thano_assets.errors import ThanoError, TrainingDataError, WorkspaceError
from thano_assets.graph import Node, NodeKind
from thano_assets.learning.settings import TUNING_ROWS
from thano_assets.resources.warehouse import Column, describe, literal, quote
from thano_assets.resources.workspace import Workspace
from thano_assets.sql.statements import TrainModel
from thano_assets.system import scratch_file, write_atomically

if TYPE_CHECKING:
    import duckdb

_SHOWN_TEXT = 60  # characters of an example
_LISTED_CLASSES = 12
_FEWEST_NUMBERS = 10
_POINTERS = "training_sets"


@dataclass(frozen=True)
class TrainingSet:
    """Where the rows of a model are and what is known about them.

    Attributes:
        fingerprint: Of the rows, free of their order.
        rows: Rows that have a text (or are of a table) and, but for base models, a label.
        classes: The labels as text, in the order of their own type; none where numbers are learnt, and for a
            base model.
        label_type: The DuckDB type of the label column; empty for a base model.
        text_col: Name of the text column in the query; empty where a table is learnt from.
        label_col: Name of the label column in the query; empty for a base model.
        features: The columns that a model of tables learns from, as :meth:`.Feature.as_dict` gives them.
    """

    fingerprint: str
    rows: int
    classes: list[str]
    label_type: str
    text_col: str
    label_col: str
    features: list[dict[str, Any]] = field(default_factory=list)

    def snapshot(self, workspace: Workspace) -> Path:
        """The Parquet file with the columns of :attr:`reading` and, but for base models, :attr:`label`."""
        return workspace.kept(f"{self.fingerprint}.parquet")

    @property
    def reading(self) -> Reading:
        """How the rows of the snapshot are read."""
        return TableReading.of(self.features) if self.features else TextReading("text")

    @property
    def label(self) -> str:
        """What the snapshot calls its column of labels."""
        return self.label_col if self.features else "label"

    def rows_sql(self, path: Path) -> str:
        """SQL for the rows of a snapshot, of the types that they had before Parquet kept them."""
        labels = f", {quote(self.label)}" if self.label_col else ""
        return (
            f"SELECT {self.reading.select}{labels} "
            f"FROM read_parquet({literal(str(path))}, file_row_number=true)"
        )

    def save(self, workspace: Workspace, model: str) -> None:
        """Make this the training set that the model's next training reads."""
        # What is known about the rows stands beside them; the model's own file only names them, so a
        # training that runs at the same time for the same model cannot mix the two up.
        kept = {name: value for name, value in asdict(self).items() if name != "features" or value}
        text = json.dumps(kept, ensure_ascii=False, indent=1)
        write_atomically(workspace.snapshots / f"{self.identity}.json", text)
        write_atomically(_pointer(workspace, model), json.dumps({"training_set": self.identity}))

    @property
    def identity(self) -> str:
        """Names the rows and how they were read: the fingerprint and the columns' names and label type."""
        read = repr(self.features) if self.features else self.text_col
        return identity_of(self.fingerprint, read, self.label_col, self.label_type)

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


def identity_of(fingerprint: str, read: str, label_col: str, label_type: str) -> str:
    """See :attr:`TrainingSet.identity`."""
    read_as = f"{read}\n{label_col}\n{label_type}"
    return f"{fingerprint}-{hashlib.sha256(read_as.encode()).hexdigest()[:8]}"


def kept_rows(model: str, runtime: Runtime) -> TrainingSet:
    """The training set that an earlier step of this run made for ``model``, else the one kept last.

    Raises:
        WorkspaceError: there is none.
    """
    made = made_in_this_run((NodeKind.TRAINING_SET.value, model))
    return TrainingSet.load(runtime.workspace, model, None if made is None else made.facts["training set"])


def write_snapshot(connection: duckdb.DuckDBPyConnection, relation: str, target: Path, order: str) -> None:
    """Keep the rows of ``relation`` in an order of their own (see :attr:`.Reading.order`), once."""
    if target.is_file():
        return
    with scratch_file(target.parent) as temporary:
        connection.execute(
            f"COPY (FROM {relation} {SNAPSHOT_ROW} ORDER BY {order}) TO {literal(str(temporary))} "
            "(FORMAT parquet, COMPRESSION zstd)"
        )
        temporary.replace(target)


def _pointer(workspace: Workspace, model: str) -> Path:
    return workspace.snapshots / _POINTERS / f"{model}.json"


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Run the model's query, check its rows and keep them.

    Raises:
        UnknownColumn, ColumnTypeError: the columns that the options name do not fit the query.
        TrainingDataError: no rows, NULL labels, one class only, too few rows; says the counts.
    """
    statement = node.statement(TrainModel)
    workspace = runtime.workspace
    numbers = label_type_kept(statement) == "DOUBLE"
    with staged(statement.query, runtime) as stage:
        reading, label = training_columns(statement, stage.columns)
        assert label is not None  # only base models, made above, have none
        connection = stage.connection
        rows_sql = training_rows("rows", reading, label, label_type_kept(statement))
        connection.execute(f"CREATE VIEW training AS {rows_sql}")
        present = present_label(quote(label.name), label.type, numbers=numbers)
        grouped = f"CASE WHEN {present} IS NOT NULL THEN 0 END" if numbers else present
        counts: list[tuple[str | None, int]] = connection.execute(
            f"SELECT CAST({grouped} AS VARCHAR), count(*) FROM rows WHERE {reading.present} "
            f"GROUP BY {grouped} ORDER BY {grouped}"
        ).fetchall()
        (_check_numbers if numbers else _check)(statement, stage.count, label, counts)
        rows = sum(count for _, count in counts)
        fingerprint = runtime.warehouse.fingerprint(connection, "training")
        training_set = training_set_of(fingerprint, rows, reading, label, [] if numbers else counts)
        target = training_set.snapshot(workspace)
        write_snapshot(connection, "training", target, reading.order)
        shown = preview(connection, "training")
        columns = describe(connection, "training")
        skipped = stage.count - rows
        spoilt = dates_not_read("rows", reading)
        not_dates = connection.execute(spoilt).fetchall() if spoilt else []
        ignored = unread(stage.columns, statement, reading)
        contradiction = _contradiction(connection) if isinstance(reading, TextReading) else None
    training_set.save(workspace, node.name)
    outcome = Outcome(
        data_version=training_set.identity,
        summary=f"{rows:,} rows, {len(counts)} classes"
        if not numbers
        else f"{rows:,} rows, {len(reading.names)} columns to predict {label.name} from",
        rows=rows,
        columns=columns,
        preview=shown,
        facts={
            "training set": training_set.identity,
            "snapshot": str(target),
            "label type": label.type,
        },
        details={"training_set": training_set.identity},
    )
    if not numbers:
        listed = ", ".join(f"{name}: {count:,}" for name, count in counts[:_LISTED_CLASSES])
        outcome.facts |= {"classes": len(counts), "rows per class": listed}
    if isinstance(reading, TableReading):
        outcome.facts["columns"] = ", ".join(f"{one.name} ({one.kind})" for one in reading.features[:50])
    if skipped:
        outcome.warn(runtime.progress, f"{skipped:,} rows without text were left out of the training set.")
    if contradiction is not None:
        outcome.warn(runtime.progress, contradiction)
    for name, count in not_dates:
        outcome.warn(runtime.progress, f"{count:,} values of {name} are no dates and count as missing.")
    if ignored:
        named = ", ".join(f"{one.name} ({one.type})" for one in ignored[:8])
        outcome.warn(
            runtime.progress,
            f"Not learnt from, because of the type: {named}. A vector of fixed length is, such as "
            f"CAST({ignored[0].name} AS FLOAT[384]).",
        )
    return outcome


def _contradiction(connection: duckdb.DuckDBPyConnection) -> str | None:
    """How many texts of the view ``training`` stand there with different labels, with an example."""
    texts, rows, example, labels = connection.execute(
        "SELECT count(*), sum(n), arg_max(text, n), arg_max(labels, n) FROM (SELECT text, count(*) AS n, "
        "list_sort(list(DISTINCT label)) AS labels FROM training GROUP BY text "
        "HAVING count(DISTINCT label) > 1)"
    ).fetchall()[0]
    if not texts:
        return None
    shown = example if len(example) <= _SHOWN_TEXT else example[: _SHOWN_TEXT - 1] + "…"
    those = "1 text stands" if texts == 1 else f"{texts:,} texts stand"
    return (
        f"{those} in {rows:,} rows with different labels, such as {shown!r} with {' and '.join(labels[:4])}."
    )


def training_set_of(
    fingerprint: str,
    rows: int,
    reading: Reading,
    label: Column | None,
    counts: list[tuple[str | None, int]],
) -> TrainingSet:
    """What is known about a training set; ``counts`` are the rows of each class, where there are any."""
    return TrainingSet(
        fingerprint=fingerprint,
        rows=rows,
        classes=[str(name) for name, _ in counts],
        label_type="" if label is None else label.type,
        text_col="" if not isinstance(reading, TextReading) else reading.column,
        label_col="" if label is None else label.name,
        features=[one.as_dict() for one in reading.features] if isinstance(reading, TableReading) else [],
    )


def _check_numbers(
    statement: TrainModel, total: int, label: Column, counts: list[tuple[str | None, int]]
) -> None:
    rows = sum(count for _, count in counts)
    nulls = sum(count for name, count in counts if name is None)
    error: ThanoError | None = None
    if total == 0:
        error = TrainingDataError("The query gives 0 rows.", hint="A model needs rows to learn from.")
    elif nulls:
        error = TrainingDataError(
            f"{nulls:,} of {rows:,} rows have no number in the label column {label.name}.",
            hint=missing_words(label.name, label.type)[1],
        )
    elif rows < _FEWEST_NUMBERS:
        error = TrainingDataError(
            f"{rows:,} rows are too few to predict {label.name} from.",
            hint=f"Give at least {_FEWEST_NUMBERS} rows.",
        )
    if error is not None:
        raise error.at(statement.source, statement.query.span.start)


def _check(statement: TrainModel, total: int, label: Column, counts: list[tuple[str | None, int]]) -> None:
    rows = sum(count for _, count in counts)
    error: ThanoError | None = None
    nulls = sum(count for name, count in counts if name is None)
    classes = [(name, count) for name, count in counts if name is not None]
    listed = ", ".join(f"{name}: {count:,}" for name, count in classes[:_LISTED_CLASSES])
    table = statement.task is not None
    missing, hint = missing_words(label.name, label.type)
    if total == 0:
        error = TrainingDataError(
            "The query gives 0 rows.",
            hint=f"A model needs rows with {'columns to learn from' if table else 'a text'} and a label.",
        )
    elif rows == 0:
        error = TrainingDataError(
            f"None of the query's {total:,} rows has a text.", hint="Choose another text_col."
        )
    elif nulls:
        error = TrainingDataError(
            f"{nulls:,} of {rows:,} rows have {missing} in the label column {label.name}.",
            hint=hint,
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
                hint=("AutomlRegressor predicts numbers, if that is meant. " if table else "")
                + f"Give at least {needed} rows"
                + (", or eval_fraction=0 to train on all of them." if fraction > 0 else "."),
            )
        elif statement.options.get("tune") is not None and rows - round(rows * fraction) < TUNING_ROWS:
            error = TrainingDataError(
                f"{rows - round(rows * fraction):,} rows to train on ({rows:,} without those held out) are "
                "too few to tune with.",
                hint=f"tune needs at least {TUNING_ROWS} of them, a third of which judges; leave it out.",
            )
    if error is not None:
        raise error.at(statement.source, statement.query.span.start)
