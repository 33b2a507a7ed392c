"""Champion and challenger: a new version answers only after it was held against the one that answers now.

Both are scored on the same rows, which are kept as a snapshot named by their fingerprint: those of
``evaluate_on``, or the ones that the training held out.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.assets.leaks import Leak, Memory, Trained, rows_seen
from thano_assets.assets.relations import Stage, text_column
from thano_assets.assets.runtime import CheckOutcome, Outcome, Runtime
from thano_assets.assets.scoring import probabilities
from thano_assets.assets.training_sets import TrainingSet, training_rows, write_snapshot
from thano_assets.errors import (
    ColumnTypeError,
    TrainingDataError,
    UnknownColumn,
    UnknownModel,
    UnknownTable,
    did_you_mean,
)
from thano_assets.resources.registry import VERDICT_TAG
from thano_assets.resources.warehouse import Column, describe, literal, quote
from thano_assets.sql.promotion import Comparison, Condition, condition_of
from thano_assets.sql.statements import BuildModel, FitModel

if TYPE_CHECKING:
    from thano_assets.learning.settings import TrainingSettings
    from thano_assets.resources.registry import ModelVersion

#: Name of the asset check that shows the decision.
CHECK = "promotion"
#: Data version of a model none of whose versions answers.
NO_CHAMPION = "no champion"
#: Tags of a version: ``promoted`` or ``not promoted``, and the sentence that says why.
DECISION_TAG, REASON_TAG = "thano.promotion", VERDICT_TAG
PROMOTED, NOT_PROMOTED = "promoted", "not promoted"


def data_version_of(version: ModelVersion | None) -> str:
    """What stands for the answers of a model: the weights' digest of the version that gives them."""
    return NO_CHAMPION if version is None else version.data_version


@dataclass(frozen=True)
class Frozen:
    """Rows that versions are held against.

    Attributes:
        path: Parquet file with the columns ``text`` and ``label``.
        fingerprint: Of the rows, free of their order.
        rows: How many.
        name: What they are, in words.
    """

    path: Path
    fingerprint: str
    rows: int
    name: str


@dataclass(frozen=True)
class Verdict:
    """What became of a challenger.

    Attributes:
        promoted: Whether it answers now.
        reason: One sentence.
        check: The same for Dagster.
        warnings: What a person should know about the rows.
    """

    promoted: bool
    reason: str
    check: CheckOutcome
    warnings: list[str]

    @property
    def status(self) -> str:
        """As the result's row has it."""
        return PROMOTED if self.promoted else NOT_PROMOTED


@dataclass(frozen=True)
class Gate:
    """What a new version must pass: a condition, and the rows on which it is asked."""

    condition: Condition
    frozen: Frozen
    classes: list[str]
    leak: Leak

    @classmethod
    def of(
        cls,
        statement: BuildModel | FitModel,
        training_set: TrainingSet,
        classes: list[str],
        settings: TrainingSettings,
        parent: ModelVersion | None,
        runtime: Runtime,
    ) -> Gate | None:
        """The gate that the statement asks for, its rows kept; ``None`` where every new version answers.

        Args:
            statement: Has the options.
            training_set: What the new version is trained on.
            classes: The labels in the order of the model's outputs.
            settings: Say which rows are held out.
            parent: The version that the training goes on from.
            runtime: Where rows are read and kept.

        Raises:
            UnknownTable, UnknownColumn, ColumnTypeError, TrainingDataError: ``evaluate_on`` names no table
                with labelled texts of the model's classes, no row is held out, or, with ``strict=True``, rows
                of ``evaluate_on`` are among the training rows.
            WorkspaceError: the files of the version that answers now are gone.
        """
        condition = condition_of(statement.options)
        if condition is None:
            return None
        runtime.registry.champion(statement.name)  # it will be asked to score: found out before the training
        own = Trained.of(
            training_set.snapshot(runtime.workspace), classes, settings.eval_fraction, settings.seed
        )
        if statement.options.get("evaluate_on") is not None:
            frozen = _freeze_table(statement, classes, runtime)
        else:
            frozen = _freeze_held_out(statement, own, runtime)
        memory = Memory.of(parent, runtime) if parent is not None else Memory()
        memory.trainings.insert(0, own)
        leak = _leak(frozen, memory)
        if leak.seen and statement.options.value("strict") and statement.options.get("evaluate_on"):
            place = statement.options.place("strict")
            raise TrainingDataError(
                f"{leak.seen:,} of the {leak.rows:,} rows of {frozen.name} are among the rows to train on.",
                hint="Keep them out of one of the two, or leave out strict=True.",
            ).at(statement.source, place.start, len(place))
        return cls(condition, frozen, classes, leak)

    def judge(self, challenger: ModelVersion, runtime: Runtime) -> Verdict:
        """Score ``challenger`` and the version that answers now; the better one answers from now on.

        Nobody else changes the model's versions meanwhile, so the champion that was measured is the one that
        is replaced. After a kill before the end the old champion answers.

        Raises:
            UnknownModel: the model was deleted meanwhile.
        """
        registry = runtime.registry
        with registry.exclusive(challenger.name):
            if registry.resolve(challenger.name, version=challenger.version) is None:
                raise UnknownModel(
                    f"Model {challenger.name} was deleted while its version {challenger.version} was made.",
                    hint="Run the statement again to build it anew.",
                )
            champion = registry.champion(challenger.name)
            if champion is not None and champion.run_id == challenger.run_id:
                champion = None
                again = True
            else:
                again = False
            outcome = Outcome("", "")
            ours = self._scores(challenger, runtime, outcome)
            theirs = self._scores(champion, runtime, outcome) if champion is not None else None
            failed = [] if again else self.condition.failed(ours, theirs)
            reason = self._reason(challenger, champion, ours, theirs, failed, again)
            tags = {DECISION_TAG: NOT_PROMOTED if failed else PROMOTED, REASON_TAG: reason}
            registry.log_evaluation(
                challenger,
                {f"challenge/{name}": value for name, value in ours.items()}
                | {f"challenge/champion_{name}": value for name, value in (theirs or {}).items()},
                rows=self.frozen.rows,
                digest=self.frozen.fingerprint,
                source=str(self.frozen.path),
            )
            if failed:
                registry.tag(challenger, tags)
            else:
                registry.promote(challenger.name, challenger.version, tags=tags)
            their_leak = _leak(self.frozen, Memory.of(champion, runtime)) if champion is not None else None
        facts: dict[str, Any] = {
            "condition": str(self.condition),
            "rows": self.frozen.rows,
            "rows from": self.frozen.name,
            "rows fingerprint": self.frozen.fingerprint,
            "new version": challenger.version,
            "new version's rows seen in training": self.leak.fact(),
            **{f"{name} of the new version": round(value, 6) for name, value in ours.items()},
        }
        warnings = [self.leak.sentence(f"version {challenger.version}")]
        if champion is not None and theirs is not None and their_leak is not None:
            facts |= {
                "champion": champion.version,
                "champion's rows seen in training": their_leak.fact(),
                **{f"{name} of the champion": round(value, 6) for name, value in theirs.items()},
            }
            warnings.append(their_leak.sentence(f"the champion, version {champion.version},"))
        return Verdict(
            not failed,
            reason,
            CheckOutcome(CHECK, not failed, reason, facts),
            [f"On {self.frozen.name}: {text}" for text in warnings if text],
        )

    def _scores(self, version: ModelVersion, runtime: Runtime, outcome: Outcome) -> dict[str, float]:
        """Metrics of ``version`` on the rows, macro averages over the challenger's classes.

        A class that only ``version`` knows is a wrong answer; one that it does not know it never gives.
        """
        import numpy as np

        from thano_assets.learning import metrics

        with _staged(self.frozen, runtime) as stage:
            labels = [row[0] for row in stage.connection.execute("SELECT label FROM rows").fetchall()]
            found = np.concatenate(list(probabilities(stage, "text", version, None, runtime, outcome)))
        columns = self.classes + [name for name in version.classes if name not in self.classes]
        places = {name: place for place, name in enumerate(columns)}
        wide = np.zeros((len(found), len(columns)), dtype=np.float32)
        wide[:, [places[name] for name in version.classes]] = found
        truth = np.fromiter((places[label] for label in labels), dtype=np.int64, count=len(labels))
        known = ~np.isnan(found[:, 0])  # what is blank to the model and not to SQL has no answer
        truth, wide = truth[known], wide[known]
        own = len(self.classes)
        return metrics.scores(truth, wide, own) | {"roc_auc": metrics.roc_auc(truth, wide[:, :own])}

    def _reason(
        self,
        challenger: ModelVersion,
        champion: ModelVersion | None,
        ours: dict[str, float],
        theirs: dict[str, float] | None,
        failed: list[Comparison],
        again: bool,
    ) -> str:
        rows = f"on {self.frozen.rows:,} rows of {self.frozen.name}"
        if again:
            return f"Version {challenger.version} answers already ({rows})."
        if failed:
            told = " and ".join(_words(one, ours, theirs, champion, "is not") for one in failed)
            still = "no version answers" if champion is None else f"version {champion.version} still answers"
            return f"Version {challenger.version} is not promoted: {told} {rows}; {still}."
        if champion is None and any(one.against_champion for one in self.condition.comparisons):
            return f"Version {challenger.version} is promoted: there was no champion to hold it against."
        told = " and ".join(_words(one, ours, theirs, champion, "is") for one in self.condition.comparisons)
        return f"Version {challenger.version} is promoted: {told} {rows}."


def _words(
    one: Comparison,
    ours: dict[str, float],
    theirs: dict[str, float] | None,
    champion: ModelVersion | None,
    verb: str,
) -> str:
    text = f"{one.metric} {ours[one.metric]:.4f} {verb} {one.operator} {one.limit(theirs or {}):.4f}"
    if one.against_champion and champion is not None and theirs is not None:
        offset = f" {'+' if one.number > 0 else '-'} {abs(one.number):.10g}" if one.number else ""
        whose = f"{theirs[one.metric]:.4f} of version {champion.version}{offset}" if offset else ""
        text += f" ({whose})" if whose else f" of version {champion.version}"
    return text


def check_evaluation_table(statement: BuildModel | FitModel, runtime: Runtime) -> None:
    """Check, where the table of ``evaluate_on`` is there already, that it has the columns that are needed.

    Raises:
        UnknownColumn, ColumnTypeError: placed at the option.
    """
    if statement.options.get("evaluate_on") is None:
        return
    table = str(statement.options["evaluate_on"])
    if runtime.warehouse.exists(table):
        with runtime.warehouse.read() as connection:
            _columns(statement, describe(connection, quote(table)))


def _columns(statement: BuildModel | FitModel, columns: list[Column]) -> tuple[Column, Column]:
    """The text and the label column of the table of ``evaluate_on``."""
    table = str(statement.options["evaluate_on"])
    place = statement.options.value_span("evaluate_on")
    found = []
    for option in ("text_col", "label_col"):
        name = str(statement.options.value(option))
        column = next((one for one in columns if one.name.casefold() == name.casefold()), None)
        if column is None:
            names = [one.name for one in columns]
            raise UnknownColumn(
                f"The table {table} of evaluate_on has no column {name}, the {option}.",
                hint=did_you_mean(name, names, "columns"),
            ).at(statement.source, place.start, len(place))
        found.append(column)
    try:
        text_column(columns, statement)
    except ColumnTypeError as error:
        raise ColumnTypeError(f"In the table {table} of evaluate_on: {error.message}", hint=error.hint).at(
            statement.source, place.start, len(place)
        ) from None
    return found[0], found[1]


def _freeze_table(statement: BuildModel | FitModel, classes: list[str], runtime: Runtime) -> Frozen:
    """Keep the rows of the table of ``evaluate_on`` that have a text, checked like training rows."""
    table = str(statement.options["evaluate_on"])
    place = statement.options.value_span("evaluate_on")
    if not runtime.warehouse.exists(table):
        known = [one.name for one in runtime.warehouse.tables()]
        raise UnknownTable(
            f"There is no table {table}, which evaluate_on names.", hint=did_you_mean(table, known, "tables")
        ).at(statement.source, place.start, len(place))
    with runtime.warehouse.read() as connection:
        text, label = _columns(statement, describe(connection, quote(table)))
        rows = training_rows(quote(table), text, label)
        counts: dict[str | None, int] = dict(
            connection.execute(
                f"SELECT label, count(*) FROM ({rows}) GROUP BY label ORDER BY label"
            ).fetchall()
        )
        strangers = [
            f"{name}: {count:,}" for name, count in counts.items() if name is not None and name not in classes
        ]
        problem = None
        if not counts:
            problem = TrainingDataError(
                f"The table {table} of evaluate_on has no row with a text.",
                hint="Without rows no version can be held against another.",
            )
        elif None in counts:
            problem = TrainingDataError(
                f"{counts[None]:,} rows of {table}, the table of evaluate_on, have NULL in {label.name}.",
                hint=f"Make the table without them: WHERE {label.name} IS NOT NULL.",
            )
        elif strangers:
            problem = TrainingDataError(
                f"The table {table} of evaluate_on has labels that the training rows do not have "
                f"({', '.join(strangers[:8])}).",
                hint=f"The training rows have: {', '.join(classes[:12])}.",
            )
        if problem is not None:
            raise problem.at(statement.source, place.start, len(place))
        fingerprint = runtime.warehouse.fingerprint(connection, rows)
        path = runtime.workspace.kept(f"{fingerprint}.parquet")
        write_snapshot(connection, f"({rows})", path)
    return Frozen(path, fingerprint, sum(counts.values()), table)


def _freeze_held_out(statement: BuildModel | FitModel, own: Trained, runtime: Runtime) -> Frozen:
    """Keep the rows that the training holds out."""
    import duckdb
    import pyarrow as pa

    if own.held_out is None or not len(own.held_out):
        given = "promote_if"
        place = statement.options.value_span(given)
        raise TrainingDataError(
            f"{given} has no rows to judge by: the training rows are too few to hold some out.",
            hint="Raise eval_fraction, or name a table by evaluate_on.",
        ).at(statement.source, place.start, len(place))
    with duckdb.connect() as connection:
        connection.register("held_out", pa.table({"file_row_number": own.held_out}))
        rows = (
            f"SELECT r.text, r.label FROM read_parquet({literal(str(own.path))}, file_row_number=true) r "
            "SEMI JOIN held_out USING (file_row_number)"
        )
        fingerprint = runtime.warehouse.fingerprint(connection, rows)
        path = runtime.workspace.kept(f"{fingerprint}.parquet")
        write_snapshot(connection, f"({rows})", path)
    return Frozen(path, fingerprint, len(own.held_out), "those held out")


def _leak(frozen: Frozen, memory: Memory) -> Leak:
    import duckdb

    with duckdb.connect() as connection:
        return rows_seen(connection, f"read_parquet({literal(str(frozen.path))})", "text", memory)


@contextmanager
def _staged(frozen: Frozen, runtime: Runtime) -> Iterator[Stage]:
    """The kept rows as a stage of their own."""
    import duckdb

    path = runtime.workspace.snapshots / f".stage-{os.getpid()}-{uuid.uuid4().hex}.duckdb"
    try:
        with duckdb.connect(str(path)) as connection:
            connection.execute(
                f"CREATE TABLE rows AS SELECT text, label FROM read_parquet({literal(str(frozen.path))})"
            )
            columns = [Column("text", "VARCHAR"), Column("label", "VARCHAR")]
            yield Stage(connection, columns, str(path), frozen.rows)
    finally:
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".wal").unlink(missing_ok=True)
