"""Champion and challenger: a new version answers only after it was held against the one that answers now.

Both are scored on the same rows, which are kept as a snapshot named by their fingerprint: those of
``evaluate_on``, or the ones that the training held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thano_assets.assets.models.features import (
    TableReading,
)
from thano_assets.assets.models.judging_rows import (
    JudgingRows,
    held_out_rows,
    leak_of,
    reading_of,
    rows_of_table,
    staged_rows,
)
from thano_assets.assets.models.labels import classes_of
from thano_assets.assets.models.leakage import Leak, Memory, Trained
from thano_assets.assets.models.trainers import Settings, Trainer
from thano_assets.assets.models.training_inputs import trainer_of
from thano_assets.assets.models.training_sets import TrainingSet
from thano_assets.assets.predictions.scoring import probabilities
from thano_assets.assets.runtime import CheckOutcome, Outcome, Runtime
from thano_assets.errors import (
    TrainingDataError,
    UnknownModel,
)
from thano_assets.resources.registry import DECISION_TAG, VERDICT_TAG
from thano_assets.resources.warehouse import quote
from thano_assets.sql.promotion import Comparison, Condition, condition_of
from thano_assets.sql.statements import BuildModel, TrainModel

if TYPE_CHECKING:
    from thano_assets.resources.registry import ModelVersion

#: Name of the asset check that shows the decision.
CHECK = "promotion"
#: Data version of a model none of whose versions answers.
NO_CHAMPION = "no champion"
#: Tags of a version: ``promoted`` or ``not promoted``, and the sentence that says why.
REASON_TAG = VERDICT_TAG
_JUDGED_BY_TAG = "thano.promotion_question"
PROMOTED, NOT_PROMOTED = "promoted", "not promoted"


def data_version_of(version: ModelVersion | None) -> str:
    """What stands for the answers of a model: the weights' digest of the version that gives them."""
    return NO_CHAMPION if version is None else version.data_version


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


def last_verdict(name: str, runtime: Runtime) -> CheckOutcome | None:
    """What became of the newest version that was judged; ``None`` where none was."""
    for version in sorted(runtime.registry.versions(name), key=lambda one: -one.version):
        if (decision := version.tags.get(DECISION_TAG)) is not None:
            reason = version.tags.get(REASON_TAG, "")
            facts = {"version": version.version, "judged": "when it was made"}
            return CheckOutcome(CHECK, decision == PROMOTED, reason, facts, blocking=False)
    return None


@dataclass(frozen=True)
class Gate:
    """What a new version must pass: a condition, and the rows on which it is asked."""

    condition: Condition
    frozen: JudgingRows
    training_set: TrainingSet
    trainer: Trainer
    classes: list[str]
    label_type: str
    leak: Leak

    @classmethod
    def of(
        cls,
        statement: TrainModel,
        training_set: TrainingSet,
        classes: list[str],
        label_type: str,
        settings: Settings,
        parent: ModelVersion | None,
        runtime: Runtime,
    ) -> Gate | None:
        """The gate that the statement asks for, its rows kept; ``None`` where every new version answers.

        Args:
            statement: Has the options.
            training_set: What the new version is trained on.
            classes: The labels in the order of the model's outputs.
            label_type: Their DuckDB type.
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
        # It will be asked to score: found out before the training.
        champion = runtime.registry.champion(statement.name)
        if champion is not None:
            _check_comparable(statement, training_set, champion)
        own = Trained.of(
            training_set.snapshot(runtime.workspace),
            classes,
            settings.eval_fraction,
            settings.seed,
            training_set.label,
            texts=getattr(settings, "split", "rows") == "texts",
            types=(training_set.label_type, label_type),
        )
        if statement.options.get("evaluate_on") is not None:
            frozen = rows_of_table(statement, training_set, classes, label_type, runtime)
        else:
            frozen = held_out_rows(statement, training_set, own, runtime)
        memory = Memory.of(parent, runtime) if parent is not None else Memory()
        memory.trainings.insert(0, own)
        leak = leak_of(frozen, training_set.reading, memory)
        if leak.seen and statement.options.value("strict") and statement.options.get("evaluate_on"):
            place = statement.options.place("strict")
            raise TrainingDataError(
                f"{leak.seen:,} of the {leak.rows:,} rows of {frozen.name} are among the rows to train on.",
                hint="Keep them out of one of the two, or leave out strict=True.",
            ).at(statement.source, place.start, len(place))
        trainer = trainer_of(statement)
        return cls(condition, frozen, training_set, trainer, classes, label_type, leak)

    def judge(self, challenger: ModelVersion, runtime: Runtime) -> Verdict:
        """Score ``challenger`` and the version that answers now; the better one answers from now on.

        Nobody else changes the model's versions meanwhile, so the champion that was measured is the one that
        is replaced. After a kill before the end the old champion answers.

        Raises:
            UnknownModel: the model was deleted meanwhile.
        """
        registry = runtime.registry
        with registry.exclusive(challenger.name):
            found = registry.resolve(challenger.name, version=challenger.version)
            if found is None:
                raise UnknownModel(
                    f"Model {challenger.name} was deleted while its version {challenger.version} was made.",
                    hint="Run the statement again to build it again.",
                )
            if (known := self._known(found)) is not None:
                return known
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
            tags = {
                DECISION_TAG: NOT_PROMOTED if failed else PROMOTED,
                REASON_TAG: reason,
                _JUDGED_BY_TAG: self._question(),
            }
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
            their_leak = None
            if champion is not None:
                theirs_read = reading_of(champion)
                their_leak = leak_of(self.frozen, theirs_read, Memory.of(champion, runtime))
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
            CheckOutcome(CHECK, not failed, reason, facts, blocking=False),
            [f"On {self.frozen.name}: {text}" for text in warnings if text],
        )

    def _question(self) -> str:
        return f"{self.condition} on {self.frozen.fingerprint}"

    def _known(self, challenger: ModelVersion) -> Verdict | None:
        """The verdict on a version that another run judged by the same question; one version, one verdict."""
        if challenger.tags.get(_JUDGED_BY_TAG) != self._question():
            return None
        promoted, reason = challenger.tags.get(DECISION_TAG) == PROMOTED, challenger.tags.get(REASON_TAG, "")
        facts = {"condition": str(self.condition), "rows from": self.frozen.name, "judged": "in another run"}
        return Verdict(promoted, reason, CheckOutcome(CHECK, promoted, reason, facts, blocking=False), [])

    def _scores(self, version: ModelVersion, runtime: Runtime, outcome: Outcome) -> dict[str, float]:
        """Metrics of ``version`` on the rows, macro averages over the challenger's classes.

        A class that only ``version`` knows is a wrong answer; one that it does not know it never gives.
        """
        import numpy as np

        with staged_rows(self.frozen, self.training_set, runtime) as stage:
            label = quote(self.training_set.label)
            labels = [row[0] for row in stage.connection.execute(f"SELECT {label} FROM rows").fetchall()]
            reading = reading_of(version)
            found = np.concatenate(list(probabilities(stage, reading, version, None, runtime, outcome)))
        if version.task == "regression":
            return self.trainer.scores(labels, found, 0)
        own = self.training_set.label_type
        true = classes_of(labels, own, self.classes, self.label_type)
        says = classes_of(version.classes, version.label_type, self.classes, self.label_type)
        columns = self.classes + [name for name in says.values() if name not in self.classes]
        places = {name: place for place, name in enumerate(columns)}
        wide = np.zeros((len(found), len(columns)), dtype=np.float32)
        wide[:, [places[says[name]] for name in version.classes]] = found
        return self.trainer.scores([places[true[label]] for label in labels], wide, len(self.classes))

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


def _check_comparable(statement: TrainModel, training_set: TrainingSet, champion: ModelVersion) -> None:
    """Check that the champion can be asked about rows that the new version reads.

    Raises:
        TrainingDataError: it is a model of another kind, or reads columns that are not among them.
    """
    who = f"{champion.name} VERSION {champion.version}"
    task = statement.task if isinstance(statement, BuildModel) else None
    problem = None
    if task != champion.task:
        kinds = {None: "texts", "classification": "classes of a table", "regression": "numbers of a table"}
        problem = f"{who}, which answers now, predicts {kinds[champion.task]}"
    elif task:
        known = {str(one["name"]).casefold(): str(one["type"]) for one in training_set.features}
        others = [
            f"{one.name} ({one.type})"
            for one in TableReading.of(champion.features).features
            if one.name.casefold() not in known or not one.takes(known[one.name.casefold()])
        ]
        if others:
            problem = (
                f"{who}, which answers now, reads {', '.join(others[:8])}, which the query does not have"
            )
    if problem is not None:
        raise TrainingDataError(
            f"The new version cannot be held against the old one: {problem}.",
            hint="Build it under another name, or without promote_if and evaluate_on.",
        ).at(statement.source, statement.span.start)


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
