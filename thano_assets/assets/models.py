"""Models: trained from a snapshot, logged to MLflow, registered as a version whole or not at all."""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.assets.runtime import Outcome, Runtime, made_in_this_run
from thano_assets.assets.training_sets import TrainingSet
from thano_assets.errors import TrainingDataError, UnknownModel
from thano_assets.graph import Node, NodeKind
from thano_assets.sql.statements import BuildModel, FitModel, Statement

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.learning.settings import TrainingSettings
    from thano_assets.learning.train import TrainingResult
    from thano_assets.resources.registry import ModelVersion

_CHUNK = 1 << 20


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Train and register a version of the model, or register the pre-built one.

    Raises:
        BaseModelUnavailable: no source has the base model; each is named with its reason.
        TrainingDataError: FIT MODEL with labels that are not its parent's.
    """
    statement = node.entry.statement
    if isinstance(statement, (BuildModel, FitModel)):
        return _train(node, statement, runtime)
    return _prebuilt(node, runtime)


def settings_of(statement: BuildModel | FitModel) -> TrainingSettings:
    """The training settings that the statement's options ask for."""
    from thano_assets.learning.settings import TrainingSettings

    value = statement.options.value
    return TrainingSettings(
        epochs=value("max_epochs"),
        batch_size=value("batch_size"),
        learning_rate=value("learning_rate"),
        max_length=value("max_length"),
        eval_fraction=value("eval_fraction"),
        seed=value("seed"),
        early_stopping=value("early_stopping"),
        class_weight=value("class_weight"),
        train=value("train"),
        baseline=value("baseline"),
    )


def _train(node: Node, statement: BuildModel | FitModel, runtime: Runtime) -> Outcome:
    started = time.perf_counter()
    made = made_in_this_run((NodeKind.TRAINING_SET.value, node.name))
    training_set = TrainingSet.load(
        runtime.workspace, node.name, None if made is None else made.facts["training set"]
    )
    parent = _parent(statement, training_set, runtime) if isinstance(statement, FitModel) else None
    base_name = statement.base if isinstance(statement, BuildModel) else _root_base(parent)

    import pyarrow.parquet as pq

    from thano_assets.learning.train import train
    from thano_assets.resources import base_models

    base = base_models.resolve(
        base_name,
        quoted=isinstance(statement, BuildModel) and statement.base_quoted,
        revision=statement.options.get("base_revision"),
        workspace=runtime.workspace,
    )
    described = base.describe() + (f" ({base.note})" if base.note else "")
    if base.note:
        runtime.progress.message(base.note)
    settings = settings_of(statement)
    rows = pq.read_table(training_set.snapshot(runtime.workspace))
    fingerprint = _fingerprint(node, training_set, base.identity, parent)
    tags = {
        "thano.statement": statement.text.strip(),
        "thano.asset_key": "/".join(node.key),
        "thano.fingerprint": fingerprint,
        "thano.training_set": training_set.fingerprint,
        "thano.label_type": training_set.label_type,
        "thano.base": base_name,
        "thano.base_source": base.describe().removeprefix(f"{base.name}: "),
        "thano.base_note": base.note or "",
        "thano.base_revision": base.revision,
        "thano.class_name": base_name,
        "dagster.run_id": runtime.run_id or "",
    }
    if parent is not None:
        tags["thano.parent"] = f"{parent.name} VERSION {parent.version}"
    with (
        runtime.workspace.lock(f"training-{fingerprint}"),  # two of the same would share their checkpoints
        runtime.registry.build(node.name, tags=tags, params=_params(settings, statement, base_name)) as build,
        tempfile.TemporaryDirectory(prefix="thano-model-") as folder,
    ):
        build.log_dataset(
            name=f"training set of {node.name}",
            digest=training_set.fingerprint,
            rows=training_set.rows,
            source=str(training_set.snapshot(runtime.workspace)),
        )
        result = train(
            rows.column("text"),
            rows.column("label").to_pylist(),
            training_set.classes,
            base,
            settings,
            output_dir=Path(folder) / "model",
            checkpoint_dir=runtime.workspace.models_cache / "checkpoints" / fingerprint,
            progress=runtime.progress,
            on_metrics=build.log_metrics,
            init_dir=parent.path if parent is not None else None,
        )
        pictures = _pictures(result)
        for name, png in pictures.items():
            build.log_figure(name.replace(" ", "_") + ".png", png)
        metrics = _metrics(result)
        data_version = _weights_digest(result.model_dir)
        registered = build.register(
            result.model_dir,
            labels={"classes": training_set.classes, "type": training_set.label_type},
            metrics=metrics,
            tags={
                **tags,
                "thano.data_version": data_version,
                "thano.max_length": str(result.max_length),
                "thano.libraries": ", ".join(
                    f"{name} {text}" for name, text in result.library_versions.items()
                ),
            },
        )
    seconds = time.perf_counter() - started
    outcome = Outcome(
        data_version=data_version,
        summary=_summary(node.name, registered, result),
        pictures=pictures,
        result=_result_row(node.name, registered, result, seconds),
        mlflow_run_id=registered.run_id,
    )
    outcome.facts = {
        "model version": registered.version,
        "base model": described,
        "rows train": result.rows_train,
        "rows eval": result.rows_eval,
        **{name.replace("_", " "): value for name, value in metrics.items()},
        "device": f"{result.device} {result.precision}",
        "seconds": round(seconds, 1),
    }
    outcome.links = {
        "MLflow run": runtime.registry.run_url(registered.run_id),
        "MLflow model": runtime.registry.model_url(node.name, registered.version),
    }
    return outcome


def _prebuilt(node: Node, runtime: Runtime) -> Outcome:
    from thano_assets.resources import base_models

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
        data_version = _weights_digest(prebuilt.model_dir)
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
    ours, theirs = set(training_set.classes), set(parent.classes)
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


def _root_base(parent: ModelVersion | None) -> str:
    return parent.tags.get("thano.base", "ElectraEn") if parent is not None else "ElectraEn"


def _fingerprint(
    node: Node, training_set: TrainingSet, base_identity: str, parent: ModelVersion | None
) -> str:
    parts = [node.code_version, training_set.fingerprint, base_identity]
    if parent is not None:
        parts.append(f"{parent.name}:{parent.version}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _weights_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()[:32]


def _params(settings: TrainingSettings, statement: Statement, base: str) -> dict[str, Any]:
    return {"base": base, **settings.as_dict(), "text_col": statement.options.value("text_col")} | {
        "label_col": statement.options.value("label_col")
    }


def _metrics(result: TrainingResult) -> dict[str, float]:
    metrics = {name: float(value) for name, value in result.metrics.items() if value is not None}
    if result.baseline_accuracy is not None:
        metrics["baseline_accuracy"] = result.baseline_accuracy
    if result.majority_accuracy is not None:
        metrics["majority_accuracy"] = result.majority_accuracy
    return metrics


def _pictures(result: TrainingResult) -> dict[str, bytes]:
    from thano_assets.learning import figures

    pictures = {"training curve": figures.training_curve(result.history)}
    if result.rows_eval:
        pictures["confusion matrix"] = figures.confusion_matrix(result.confusion, result.classes)
    return pictures


def _summary(name: str, registered: ModelVersion, result: TrainingResult) -> str:
    made = f"model {name}: version {registered.version}"
    accuracy = result.metrics.get("accuracy")
    if accuracy is None:
        return f"{made}, trained on {result.rows_train:,} rows, none held out"
    text = f"{made}, accuracy {accuracy:.3f} on {result.rows_eval:,} held-out rows"
    if result.baseline_accuracy is not None:
        text += f" (TF-IDF with logistic regression {result.baseline_accuracy:.3f}"
        text += (
            f", majority class {result.majority_accuracy:.3f})"
            if result.majority_accuracy is not None
            else ")"
        )
    return text


def _result_row(name: str, registered: ModelVersion, result: TrainingResult, seconds: float) -> pa.Table:
    import pyarrow as pa

    def number(value: float | None) -> pa.Array:
        return pa.array([None if value is None else round(float(value), 6)], pa.float64())

    return pa.table(
        {
            "model": [name],
            "version": [int(registered.version)],
            "status": ["registered"],
            "rows_train": [result.rows_train],
            "rows_eval": [result.rows_eval],
            "accuracy": number(result.metrics.get("accuracy")),
            "f1_macro": number(result.metrics.get("f1_macro")),
            "loss": number(result.metrics.get("loss")),
            "baseline_accuracy": number(result.baseline_accuracy),
            "majority_accuracy": number(result.majority_accuracy),
            "seconds": [round(seconds, 1)],
            "device": [result.device],
            "run_id": [registered.run_id],
        }
    )
