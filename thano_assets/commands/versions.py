"""Statements about the versions of a model: which there are, which one answers, and how each came about."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thano_assets.assets.models import promotion, replay
from thano_assets.assets.models.bases import read_base
from thano_assets.assets.models.replay import training_behind
from thano_assets.assets.models.training import training_again
from thano_assets.assets.predictions import prediction_cache
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.catalog import entry_of
from thano_assets.errors import ChampionKept, ThanoError, UnknownModel, did_you_mean
from thano_assets.graph import Graph, NodeKind
from thano_assets.graph.build import Key
from thano_assets.orchestration import run_tags
from thano_assets.resources.own_bases import BASE_VERSION_TAG
from thano_assets.results import Result
from thano_assets.sql.grammar import CHAMPION
from thano_assets.sql.statements import (
    BuildModel,
    DeleteModel,
    PromoteModel,
    RebuildModel,
    ShowTraining,
    ShowVersions,
    Statement,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.catalog.overlay import Entries
    from thano_assets.orchestration.runner import Runner
    from thano_assets.resources.registry import ModelVersion

_PRETRAINING_FIGURES = (
    "loss",
    "discriminator_loss",
    "generator_loss",
    "learning_rate",
    "tokens_per_second",
)
# Figures of models that predict numbers.
_NUMBERS = ("mae", "rmse", "r2")


def versions(statement: ShowVersions, runtime: Runtime) -> pa.Table:
    """The rows of SHOW VERSIONS OF MODEL, newest first.

    Columns: version, aliases, status (``champion``, ``promoted`` before, ``not promoted`` or ``registered``),
    why, accuracy, f1_macro, loss (of models that predict numbers also mae, rmse, r2),
    rows_train, rows_eval, created (UTC), statement, parent, data_version,
    run_id (of MLflow), dagster_run_id; of a base model also discriminator_loss, generator_loss, replaced_f1.

    Raises:
        UnknownModel: there is no such model.
    """
    import pyarrow as pa

    found = _versions(statement, runtime)[::-1]

    def tags(name: str) -> pa.Array:
        return pa.array([version.tags.get(name) or None for version in found], pa.string())

    def counts(name: str) -> pa.Array:
        texts = [version.tags.get(name, "") for version in found]
        return pa.array([int(text) if text.isdigit() else None for text in texts], pa.int64())

    def metrics(name: str) -> pa.Array:
        return pa.array([version.metrics.get(name) for version in found], pa.float64())

    of_bases = ("discriminator_loss", "generator_loss", "replaced_f1") if found[0].is_base else ()
    return pa.table(
        {
            "version": pa.array([version.version for version in found], pa.int64()),
            "aliases": pa.array([list(version.aliases) for version in found], pa.list_(pa.string())),
            "status": pa.array([_status(version) for version in found], pa.string()),
            "why": tags(promotion.REASON_TAG),
            "accuracy": metrics("accuracy"),
            "f1_macro": metrics("f1_macro"),
            "loss": metrics("loss"),
            **{name: metrics(name) for name in _NUMBERS if any(name in one.metrics for one in found)},
            "rows_train": counts("thano.rows_train"),
            "rows_eval": counts("thano.rows_eval"),
            "created": pa.array([version.created for version in found], pa.timestamp("ms", tz="UTC")),
            "statement": tags("thano.statement"),
            "parent": tags("thano.parent"),
            "data_version": tags("thano.data_version"),
            "run_id": pa.array([version.run_id for version in found], pa.string()),
            "dagster_run_id": tags("dagster.run_id"),
            **{name: metrics(name) for name in of_bases},
        }
    )


def _status(version: ModelVersion) -> str:
    if CHAMPION in version.aliases:
        return CHAMPION
    return version.tags.get(promotion.DECISION_TAG) or "registered"


def training(statement: ShowTraining, runtime: Runtime) -> pa.Table:
    """The rows of SHOW TRAINING OF MODEL: the curve of the newest training, step by step.

    Columns: step, epoch, loss, eval_loss, eval_accuracy, learning_rate, rows_per_second, seconds (since the
    start), status (``running``, ``finished``, ``failed`` or ``killed``), run_id (of MLflow). A training that
    goes on in another process is shown as far as it is; figures reach the database every two seconds. Of a
    base model: discriminator_loss, generator_loss and tokens_per_second in place of the held-out rows' and
    rows_per_second.

    Raises:
        UnknownModel: the model was never trained here.
    """
    import pyarrow as pa

    run = runtime.registry.newest_training(statement.name)
    if run is None and not runtime.registry.versions(statement.name):
        raise _unknown(statement, runtime)
    points = run.points if run is not None else []
    figures = ("epoch", "loss", "eval_loss", "eval_accuracy", "learning_rate", "rows_per_second", "seconds")
    if any("discriminator_loss" in point for point in points):
        figures = ("epoch", *_PRETRAINING_FIGURES, "seconds")
    return pa.table(
        {
            "step": pa.array([int(point["step"]) for point in points], pa.int64()),
            **{name: pa.array([point.get(name) for point in points], pa.float64()) for name in figures},
            "status": pa.array([run.status if run else "" for _ in points], pa.string()),
            "run_id": pa.array([run.run_id if run else "" for _ in points], pa.string()),
        }
    )


def promote(statement: PromoteModel, runtime: Runtime, runner: Runner, catalog: Entries) -> Result:
    """PROMOTE MODEL: the version answers from now on, and Dagster marks what the former one predicted.

    Raises:
        UnknownModel: there is no such model or version.
        WorkspaceError: the version's files are gone.
    """
    import pyarrow as pa

    registry, name = runtime.registry, statement.name
    wanted = _version(statement, statement.version, runtime)
    with registry.exclusive(name):
        before = next((one for one in registry.versions(name) if CHAMPION in one.aliases), None)
        same = before is not None and before.run_id == wanted.run_id
        why = f"by hand: {' '.join(statement.text.split())}"
        if before is not None and not same:
            why += f" (before: version {before.version})"
        tags = {} if same else {promotion.DECISION_TAG: promotion.PROMOTED, promotion.REASON_TAG: why}
        champion = registry.promote(name, wanted.version, tags=tags)
        # Also where it was the champion before: a kill may have come between the alias and the record.
        told = _tell_dagster(champion, runner, why)
    summary = f"{name} version {champion.version} answers now"
    if same:
        summary = f"{name} version {champion.version} answers already"
    elif before is not None:
        summary += f", version {before.version} did before"
    result = Result(statement.kind, statement.text, summary)
    if told and (readers := _readers((NodeKind.MODEL.value, name), catalog)):
        listed = ", ".join(readers)
        result.warnings.append(f"{listed} read it and are out of date now; thano run makes them again.")
    result.rows = pa.table(
        {
            "model": [name],
            "version": pa.array([champion.version], pa.int64()),
            "before": pa.array([before.version if before is not None else None], pa.int64()),
            "status": ["promoted"],
        }
    )
    result.row_count = 1
    return result


def _tell_dagster(champion: ModelVersion, runner: Runner, why: str) -> bool:
    """Record the new champion as the model's state; ``False`` where that is what is recorded already."""
    from thano_assets.orchestration.records import report

    key = (NodeKind.MODEL.value, champion.name)
    now = champion.data_version
    record = runner.records([key]).get(key)
    if record is not None and record.data_version == now:
        return False
    report(
        runner.instance,
        key,
        data_version=now,
        code_version=record.code_version if record else None,
        inputs=record.inputs if record else None,
        statement=record.statement if record else None,
        details={**(record.details if record else {}), "answers": now},
        why=f"Version {champion.version} answers: {why}",
    )
    return True


def delete(statement: DeleteModel, runtime: Runtime, runner: Runner, catalog: Entries) -> Result:
    """DELETE MODEL … VERSION n: remove a version that does not answer.

    Its MLflow run, and the rows that it was trained on, stay.

    Raises:
        UnknownModel: there is no such model or version.
        ChampionKept: it is the version that answers.
    """
    assert statement.version is not None
    registry, name = runtime.registry, statement.name
    with registry.exclusive(name):
        found = _versions(statement, runtime)
        wanted = next((one for one in found if one.version == statement.version), None)
        if wanted is None:
            raise _no_version(statement, statement.version, found)
        if CHAMPION in wanted.aliases:
            others = [one.version for one in found if one is not wanted]
            raise ChampionKept(
                f"{name} VERSION {wanted.version} is the champion, which answers.",
                hint=f"PROMOTE MODEL {name} VERSION {others[-1]} first, or another of its versions."
                if others
                else f"It is the only version: DELETE MODEL {name} removes the model.",
            ).at(statement.source, statement.name_span.start, len(statement.name_span))
        registry.delete(name, wanted.version)
    if wanted.data_version not in {one.data_version for one in found if one is not wanted}:
        prediction_cache.forget(runtime.workspace, wanted.data_version)
    result = Result(statement.kind, statement.text, f"{name} version {wanted.version} deleted")
    pinned = _readers((NodeKind.MODEL_VERSION.value, f"{name} VERSION {wanted.version}"), catalog)
    if pinned:
        result.warnings.append(f"{', '.join(pinned)} name this version and cannot be made again without it.")
    parent = f"{name} VERSION {wanted.version}"
    children = [
        f"{one.name} VERSION {one.version}"
        for model in registry.models()
        for one in registry.versions(model)
        if parent in (one.tags.get("thano.parent"), one.tags.get(BASE_VERSION_TAG))
    ]
    if children:
        result.warnings.append(f"{', '.join(children)} went on from it and cannot be replayed without it.")
    return result


def rebuild(statement: RebuildModel, runtime: Runtime, runner: Runner, catalog: Entries) -> Result:
    """REBUILD MODEL: train a version again from what is kept of it.

    Without VERIFY the result is registered as a new version, by the rules of the statement that made the old
    one. With VERIFY nothing is registered: ``what``, ``then``, ``now`` and ``equal`` compare the two,
    and the report is kept in MLflow and on the model's page in Dagster.

    Raises:
        UnknownModel: there is no such model or version.
        UnsupportedStatement: the version was not trained here.
        WorkspaceError: its training rows or its parent are no longer kept.
        BaseModelUnavailable: no source has the base model now.
    """
    from thano_assets.orchestration.metadata import observe_replay

    version = _version(statement, statement.version, runtime)
    try:
        if not statement.verify:
            return _registered_again(statement, version, runtime, runner, catalog)
        report = replay.verify(version, runtime)
    except ThanoError as error:
        if error.text != statement.source:  # it is about the old statement's text, which nobody wrote now
            error.line = error.column = error.text = None
        raise error.at(statement.source, statement.name_span.start, len(statement.name_span))  # noqa: B904
    observe_replay(runner.instance, report, runtime.registry.run_url(report.run_id))
    result = Result.of(statement.kind, statement.text, report.table())
    result.summary, result.mlflow_run_id = report.sentence, report.run_id
    if not report.equal:
        result.warnings.append(f"{report.sentence}.")
    return result


def _registered_again(
    statement: RebuildModel, version: ModelVersion, runtime: Runtime, runner: Runner, catalog: Entries
) -> Result:
    """Train again as a Dagster run, and register."""
    from thano_assets.orchestration.records import report

    training = training_behind(version, runtime)
    entry = entry_of(training.statement)
    assert entry is not None
    graph = Graph.around([entry], catalog)
    key = (NodeKind.MODEL.value, entry.name)
    base_key = read_base(graph.nodes[key])
    if isinstance(training.statement, BuildModel) and base_key is None:
        graph.nodes[key] = replace(graph.nodes[key], content=training.base.identity)
    outcomes: dict[Key, Outcome] = {}
    with training_again(training):
        tags = {run_tags.STATEMENT: run_tags.shortened(statement.text)}
        run_id = runner.run([graph.nodes[key]], graph.ancestors(key), tags, outcomes)
    outcome = outcomes[key]
    rows = (NodeKind.TRAINING_SET.value, entry.name)
    record = runner.records([key]).get(key)
    read = {rows: training.training_set.identity}
    if base_key is not None:
        read[base_key] = training.base.revision
    if record is not None and any(record.inputs.get(one, now) != now for one, now in read.items()):
        # Dagster took the training set, or the base model, of today for what was read.
        report(
            runner.instance,
            key,
            data_version=record.data_version,
            code_version=record.code_version,
            inputs={**record.inputs, **read},
            statement=record.statement,
            details=record.details,
            why=f"Trained from what version {version.version} was, which is not that of today.",
        )
    result = Result(
        statement.kind,
        statement.text,
        outcome.summary,
        list(outcome.warnings),
        run_id=run_id,
        mlflow_run_id=outcome.mlflow_run_id,
        assets=["/".join(key)],
        rows=outcome.result,
    )
    result.row_count = 1
    return result


def _versions(
    statement: ShowVersions | DeleteModel | PromoteModel | RebuildModel, runtime: Runtime
) -> list[ModelVersion]:
    found = runtime.registry.versions(statement.name)
    if not found:
        raise _unknown(statement, runtime)
    return found


def _version(statement: PromoteModel | RebuildModel, number: int | None, runtime: Runtime) -> ModelVersion:
    """The version of that number, or the champion, else the newest, where none is named."""
    found = _versions(statement, runtime)
    if number is None:
        return next((one for one in found if CHAMPION in one.aliases), found[-1])
    wanted = next((one for one in found if one.version == number), None)
    if wanted is None:
        raise _no_version(statement, number, found)
    return wanted


def _unknown(statement: Statement, runtime: Runtime) -> UnknownModel:
    name, span = statement.name, statement.name_span  # type: ignore[attr-defined]
    return UnknownModel(
        f"There is no model {name} in the registry.",
        hint=did_you_mean(name, runtime.registry.models(), "models"),
    ).at(statement.source, span.start, len(span))


def _no_version(statement: Statement, number: int, found: list[ModelVersion]) -> UnknownModel:
    span = statement.name_span  # type: ignore[attr-defined]
    known = ", ".join(str(one.version) for one in found)
    return UnknownModel(
        f"Model {found[0].name} has no version {number}.", hint=f"Its versions are: {known}."
    ).at(statement.source, span.start, statement.span.end - span.start)


def _readers(key: Key, catalog: Entries) -> list[str]:
    graph = Graph(catalog.entries())
    return ["/".join(node.key) for node in graph.readers(key)]
