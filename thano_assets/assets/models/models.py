"""Models: trained from a snapshot, logged to MLflow, registered as a version whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.assets.kind import AssetKind
from thano_assets.assets.models import pretrained_models, promotion, uploaded_models
from thano_assets.assets.models.bases import asked_of_base, base_tags
from thano_assets.assets.models.labels import classes_of
from thano_assets.assets.models.trainers import Made
from thano_assets.assets.models.training import Training, asked_again, kept_version
from thano_assets.assets.models.training_inputs import training_from
from thano_assets.assets.models.training_sets import TrainingSet, kept_rows
from thano_assets.assets.models.tuning import CHOSEN_TAG, parameters
from thano_assets.assets.predictions.scoring import refuse_tables
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.errors import ThanoError, TrainingDataError, UnknownModel
from thano_assets.graph import Node, NodeKind
from thano_assets.graph.build import makes_base
from thano_assets.learning.model_folder import weights_digest
from thano_assets.resources import base_models
from thano_assets.resources.dagster_home import TRAINING
from thano_assets.results import counted
from thano_assets.sql.statements import BuildBaseModel, FitModel, TrainModel, UploadModel

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.resources.registry import ModelVersion
    from thano_assets.resources.resolved_base import ResolvedBase


# Figures of the result's row, by what a model of tables predicts; those of a text model under None.
_FIGURES: dict[str | None, tuple[str, ...]] = {
    None: ("accuracy", "f1_macro", "loss", "baseline_accuracy", "majority_accuracy"),
    "classification": ("accuracy", "f1_macro", "loss", "roc_auc", "majority_accuracy"),
    "regression": ("mae", "rmse", "r2", "baseline_mae", "baseline_rmse"),
}


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Train and register a version of the model, or register the pre-built or an uploaded one.

    With ``promote_if`` or ``evaluate_on`` the version that answers stays the old one until the new one has
    passed. In an incremental run a version that was trained from the very same is not trained again.

    Raises:
        BaseModelUnavailable: no source has the base model; each is named with its reason.
        TrainingDataError: FIT MODEL with labels that are not its parent's, or rows of ``evaluate_on`` that
            no version can be judged by.
        UnknownTable, UnknownColumn, ColumnTypeError: what ``evaluate_on`` names.
        PathRefused, DataFileError: the folder of UPLOAD MODEL.
    """
    statement = node.entry.statement
    if isinstance(statement, UploadModel):
        return uploaded_models.materialize(node, statement, runtime)
    if isinstance(statement, BuildBaseModel):
        return pretrained_models.materialize(node, statement, runtime)
    if isinstance(statement, TrainModel):
        again = asked_again()
        training = again if isinstance(again, Training) else _training_of(node, statement, runtime)
        return _answered(training, runtime)
    return _prebuilt(node, runtime)


def _training_of(node: Node, statement: TrainModel, runtime: Runtime) -> Training:
    training_set = kept_rows(node.name, runtime)
    parent = _parent(statement, training_set, runtime) if isinstance(statement, FitModel) else None
    return training_from(node.name, statement, training_set, parent, runtime)


def _answered(training: Training, runtime: Runtime) -> Outcome:
    """Have a version of ``training``, held against the champion where that is asked for."""
    started = time.perf_counter()
    registry = runtime.registry
    before = _champion(training.name, runtime)
    # Two of the same would share their checkpoints; and the second may find the first one's version.
    with runtime.workspace.lock(f"training-{training.fingerprint}"):
        known = kept_version(training.name, training.fingerprint, runtime) if runtime.incremental else None
        gate = promotion.Gate.of(
            training.statement,
            training.training_set,
            training.classes,
            training.label_type,
            training.settings,
            training.parent,
            runtime,
        )
        made = None
        if known is None:
            version, made = _trained(training, runtime, champion=gate is None)
        else:
            version = known
    try:
        verdict = gate.judge(version, runtime) if gate is not None else None
    except Exception:
        raise
    except BaseException:  # stopped: a version that nobody has judged is half done
        if made is not None:
            with suppress(Exception):  # the stop is what is told
                registry.withdraw(version.name, version.run_id, before.version if before else None)
        raise
    if known is not None and verdict is None:
        version = registry.promote(version.name, version.version)
    champion = version if gate is None else registry.champion(training.name)
    status = "registered" if verdict is None else verdict.status
    answers = promotion.data_version_of(champion)
    outcome = Outcome(
        data_version=answers,
        summary=_summary(version, known is not None),
        pictures=made.pictures if made is not None else {},
        result=_result_row(version, status, time.perf_counter() - started),
        mlflow_run_id=version.run_id,
        warnings=list(made.warnings) if made is not None else [],
    )
    outcome.facts = {  # what a person asks first stands first
        **({promotion.CHECK: verdict.reason} if verdict is not None else {}),
        **{name.replace("_", " "): value for name, value in version.metrics.items()},
        **(made.facts if made is not None else {}),
        "model version": version.version,
        "rows train": version.count("thano.rows_train"),
        "rows eval": version.count("thano.rows_eval"),
        **({"tuned to": version.tags[CHOSEN_TAG]} if CHOSEN_TAG in version.tags else {}),
        "base model": _described(training.base),
        "device": " ".join(filter(None, map(version.tags.get, ("thano.device", "thano.precision")))),
        "seconds": round(time.perf_counter() - started, 1),
    }
    outcome.links = {
        "MLflow run": registry.run_url(version.run_id),
        "MLflow model": registry.model_url(training.name, version.version),
    }
    outcome.details = {
        "version": version.version,
        "fingerprint": training.fingerprint,
        "base": training.base.identity,
        "training_set": training.training_set.identity,
        "parent": version.tags.get("thano.parent"),
        "trials": training.statement.options.get("tune"),
        "answers": answers,
    }
    if made is not None:
        outcome.summary += _against(version, before, same_rows=_same_rows(version, before))
        outcome.summary += _below_baseline(version)
    if verdict is not None:
        outcome.checks = [verdict.check]
        outcome.summary += f". {verdict.reason}"
        if not verdict.promoted:
            outcome.warn(runtime.progress, verdict.reason)
        for text in verdict.warnings:
            outcome.warn(runtime.progress, text)
    return outcome


def _champion(name: str, runtime: Runtime) -> ModelVersion | None:
    """The version that answers now; ``None`` also where its files are gone."""
    try:
        return runtime.registry.champion(name)
    except ThanoError:
        return None


def _same_rows(version: ModelVersion, before: ModelVersion | None) -> bool:
    """Whether two versions were measured on the same held-out rows: of one training set, split alike."""
    if before is None:
        return False
    tag = "thano.training_set_identity"
    split = ("eval_fraction", "seed", "split")
    alike = all(version.params.get(name) == before.params.get(name) for name in split)
    return alike and bool(version.tags.get(tag)) and version.tags.get(tag) == before.tags.get(tag)


def _against(version: ModelVersion, before: ModelVersion | None, *, same_rows: bool) -> str:
    """How a version compares with the one that answered before it, as the end of a sentence."""
    name = "rmse" if "rmse" in version.metrics else "accuracy"
    if before is None or before.version == version.version or name not in version.metrics:
        return ""
    if name not in before.metrics:
        return ""
    ours, theirs = version.metrics[name], before.metrics[name]
    rows = "the same held-out rows" if same_rows else "its own held-out rows"
    form = "{:.4g}" if name == "rmse" else "{:.3f}"
    told = form.format(theirs)
    change = f"{ours - theirs:+.4g}" if name == "rmse" else f"{ours - theirs:+.3f}"
    shown = "RMSE" if name == "rmse" else "accuracy"
    return f"; version {before.version} had {shown} {told} on {rows} ({change})"


def _below_baseline(version: ModelVersion) -> str:
    """That a version is no better than what costs nothing, and what to try; empty where it is better."""
    found = version.metrics
    if "rmse" in found:
        below, what = found["rmse"] > found.get("baseline_rmse", float("inf")), "always answering the mean"
        hint = "more rows, or columns that say more"
    elif "baseline_accuracy" in found:
        below, what = (
            found.get("accuracy", 1.0) < found["baseline_accuracy"],
            "TF-IDF with logistic regression",
        )
        options = ["more rows", "more epochs", "tune=8"]
        if version.params.get("train") == "head":
            options.insert(0, "train='full'")
        hint = f"{', '.join(options[:-1])} or {options[-1]}"
    else:
        below = found.get("accuracy", 1.0) < found.get("majority_accuracy", 0.0)
        what, hint = "always answering the most frequent class", "more rows, or columns that say more"
    return f". It is below {what}: try {hint}" if below else ""


def _trained(training: Training, runtime: Runtime, *, champion: bool) -> tuple[ModelVersion, Made]:
    """Train and register a version; returns it and what its training gave."""
    training_set, base = training.training_set, training.base
    if base.note:
        runtime.progress.message(base.note)
    tags = _tags(training, runtime)
    with (
        runtime.registry.build(training.name, tags=tags, params=_params(training)) as build,
        tempfile.TemporaryDirectory(prefix="thano-model-") as folder,
    ):
        build.log_dataset(
            name=f"training set of {training.name}",
            digest=training_set.fingerprint,
            rows=training_set.rows,
            source=str(training_set.snapshot(runtime.workspace)),
        )
        made = training.made(runtime, Path(folder) / "model", build, checkpoints=True)
        build.log_params(made.settings)
        for name, png in made.pictures.items():
            build.log_figure(name.replace(" ", "_") + ".png", png)
        for name, text in made.texts.items():
            build.log_text(name, text)
        version = build.register(
            made.model_dir,
            labels=made.labels,
            metrics=made.metrics,
            tags={**tags, **made.tags},
            champion=champion,
        )
    shutil.rmtree(training.kept(runtime), ignore_errors=True)
    return version, made


def _tags(training: Training, runtime: Runtime) -> dict[str, str]:
    base, training_set, parent = training.base, training.training_set, training.parent
    tags = {
        "thano.statement": training.statement.text.strip(),
        "thano.asset_key": f"{NodeKind.MODEL.value}/{training.name}",
        "thano.fingerprint": training.fingerprint,
        "thano.training_set": training_set.fingerprint,
        "thano.training_set_identity": training_set.identity,
        "thano.label_type": training_set.label_type,
        **base_tags(base),
        "dagster.run_id": runtime.run_id or "",
        **training.trainer.tags(training_set),
    }
    if parent is not None:
        tags["thano.parent"] = f"{parent.name} VERSION {parent.version}"
    return tags


def _prebuilt(node: Node, runtime: Runtime) -> Outcome:
    statement = node.entry.statement
    started = time.perf_counter()
    tags = {
        "thano.statement": statement.text.strip(),
        "thano.asset_key": "/".join(node.key),
        "thano.base": "ElectraEn",
        "thano.class_name": "ElectraEn",
        "dagster.run_id": runtime.run_id or "",
    }
    with (
        runtime.registry.build(node.name, tags=tags, params={"prebuilt": "electra"}) as build,
        tempfile.TemporaryDirectory(prefix="thano-model-") as folder,
    ):
        prebuilt = base_models.materialize_prebuilt(Path(folder) / "model")
        data_version = weights_digest(prebuilt.model_dir)
        registered = build.register(
            prebuilt.model_dir,
            labels={"classes": prebuilt.classes, "type": "VARCHAR"},
            metrics=prebuilt.metrics,
            tags={
                **tags,
                "thano.label_type": "VARCHAR",
                "thano.data_version": data_version,
                "thano.base_source": prebuilt.source,
            },
        )
    outcome = Outcome(
        data_version=data_version,
        summary=f"model {node.name}: version {registered.version}, pre-built ({prebuilt.source})",
        facts={"model version": registered.version, "source": prebuilt.source, **prebuilt.metrics},
        links={
            "MLflow run": runtime.registry.run_url(registered.run_id),
            "MLflow model": runtime.registry.model_url(node.name, registered.version),
        },
        mlflow_run_id=registered.run_id,
        details={"version": registered.version, "answers": data_version},
    )
    outcome.facts["seconds"] = round(time.perf_counter() - started, 1)
    return outcome


def _parent(statement: FitModel, training_set: TrainingSet, runtime: Runtime) -> ModelVersion:
    ref = statement.parent
    parent = runtime.registry.resolve(ref.name, version=ref.version, alias=ref.alias)
    if parent is None:
        raise UnknownModel(
            f"There is no model {ref} in the registry.", hint="LIST MODEL shows what is there."
        ).at(statement.source, ref.span.start, len(ref.name))
    if parent.is_base:
        raise asked_of_base(statement)
    if parent.task:
        refuse_tables(statement, str(ref))
    equal = classes_of(training_set.classes, training_set.label_type, parent.classes, parent.label_type)
    ours, theirs = set(equal.values()), set(parent.classes)
    if ours != theirs:
        differences = []
        if ours - theirs:
            differences.append(f"new in the rows: {', '.join(sorted(ours - theirs)[:8])}")
        if theirs - ours:
            differences.append(f"missing from the rows: {', '.join(sorted(theirs - ours)[:8])}")
        raise TrainingDataError(
            f"The labels are not those of {ref}: {'; '.join(differences)}.",
            hint="FIT MODEL goes on with the parent's classes; BUILD MODEL starts with new ones.",
        ).at(statement.source, statement.query.span.start)
    return parent


def _described(base: ResolvedBase) -> str:
    return base.describe() + (f" ({base.note})" if base.note else "")


def _params(training: Training) -> dict[str, Any]:
    columns = training.trainer.columns(training.statement)
    return {"base": training.base.name, **parameters(training)} | columns


def _summary(version: ModelVersion, known: bool) -> str:
    made = f"model {version.name}: version {version.version}"
    if known:
        made += ", which was trained from the very same before"
    metrics, train, held = (
        version.metrics,
        *(version.count(f"thano.rows_{what}") for what in ("train", "eval")),
    )
    if tuned_to := version.tags.get(CHOSEN_TAG):
        made += f", tuned to {tuned_to} (trial {version.tags.get('thano.trials')})"
    if version.task and (tried := version.tags.get("thano.trials")):
        made += f", {version.tags.get('thano.learner')} of {counted(int(tried), 'trial')}"
        made += ", when the time was up" if version.tags.get("thano.cut_short") == "True" else ""
    if "rmse" in metrics:
        text = f"{made}, RMSE {metrics['rmse']:.4g}"
        text += f", R2 {metrics['r2']:.3f}" if "r2" in metrics else ""
        return f"{text} on {held:,} held-out rows (always the mean: RMSE {metrics['baseline_rmse']:.4g})"
    accuracy = metrics.get("accuracy")
    if accuracy is None:
        return f"{made}, trained on {train:,} rows, none held out"
    text = f"{made}, accuracy {accuracy:.3f} on {held:,} held-out rows"
    if version.task and "majority_accuracy" in metrics:
        text += f" (majority class {metrics['majority_accuracy']:.3f})"
    if "baseline_accuracy" in metrics:
        text += f" (TF-IDF with logistic regression {metrics['baseline_accuracy']:.3f}"
        if "majority_accuracy" in metrics:
            text += f", majority class {metrics['majority_accuracy']:.3f}"
        text += ")"
    return text


def _searched(version: ModelVersion) -> dict[str, list[Any]]:
    if not version.task:
        return {}
    return {"learner": [version.tags.get("thano.learner", "")], "trials": [version.count("thano.trials")]}


def _result_row(version: ModelVersion, status: str, seconds: float) -> pa.Table:
    import pyarrow as pa

    def number(name: str) -> pa.Array:
        value = version.metrics.get(name)
        return pa.array([None if value is None else round(float(value), 6)], pa.float64())

    return pa.table(
        {
            "model": [version.name],
            "version": [version.version],
            "status": [status],
            "rows_train": [version.count("thano.rows_train")],
            "rows_eval": [version.count("thano.rows_eval")],
            **{name: number(name) for name in _FIGURES[version.task]},
            **_searched(version),
            "seconds": [round(seconds, 1)],
            "device": [version.tags.get("thano.device", "")],
            "run_id": [version.run_id],
        }
    )


def _of_table(node: Node) -> bool:
    statement = node.entry.statement
    return isinstance(statement, TrainModel) and statement.task is not None


def _description(node: Node) -> str:
    if makes_base(node.entry):
        what = f"base model {node.name}, an encoder to train classifiers from, pre-trained further by "
        what += "replaced token detection"
    else:
        what = f"model of tables {node.name}" if _of_table(node) else f"text classifier {node.name}"
    return f"The {what}; each materialization registers a version in MLflow."


def _icons(node: Node) -> frozenset[str]:
    return frozenset({"scikitlearn", "mlflow"} if _of_table(node) else {"pytorch", "huggingface", "mlflow"})


KIND = AssetKind(NodeKind.MODEL, materialize, description=_description, icons=_icons, pool=TRAINING)
