"""Base models of a person's own text: pre-trained further, logged to MLflow, registered as a version."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.assets.models.bases import base_of, base_tags
from thano_assets.assets.models.trainers import Made, computed_tags
from thano_assets.assets.models.training import asked_again, kept_version, text_settings
from thano_assets.assets.models.training_inputs import fingerprint_of
from thano_assets.assets.models.training_sets import TrainingSet, kept_rows
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.graph import Node, NodeKind
from thano_assets.learning.model_folder import weights_digest
from thano_assets.learning.settings import PretrainingSettings
from thano_assets.resources.model_version import OBJECTIVE_TAG
from thano_assets.resources.resolved_base import model_type
from thano_assets.sql.objectives import REPLACED_TOKEN_DETECTION
from thano_assets.sql.statements import BuildModel

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.learning.pretrain import PretrainingResult
    from thano_assets.resources.mlflow_run import BuildRun
    from thano_assets.resources.registry import ModelVersion
    from thano_assets.resources.resolved_base import ResolvedBase


@dataclass(frozen=True)
class Pretraining:
    """Everything that a version of a base model is made from.

    Attributes:
        name: Of the model.
        statement: Has the options.
        training_set: The texts.
        base: The encoder whose pre-training goes on.
        fingerprint: Of all this: two with the same one are the same.
    """

    name: str
    statement: BuildModel
    training_set: TrainingSet
    base: ResolvedBase
    fingerprint: str

    @property
    def settings(self) -> PretrainingSettings:
        """The statement's options as the trainer takes them."""
        return pretraining_settings(self.statement)

    def run(
        self,
        runtime: Runtime,
        folder: Path,
        on_metrics: Callable[[dict[str, float], int], None],
        *,
        checkpoints: bool = True,
    ) -> PretrainingResult:
        """Train; the encoder's folder is made at ``folder``."""
        import pyarrow.parquet as pq

        from thano_assets.learning.pretrain import pretrain

        texts = pq.read_table(self.training_set.snapshot(runtime.workspace)).column("text")
        kept = runtime.workspace.models_cache / "checkpoints" / self.fingerprint
        return pretrain(
            texts,
            self.base,
            self.settings,
            output_dir=folder,
            checkpoint_dir=kept if checkpoints else None,
            progress=runtime.progress,
            on_metrics=on_metrics,
        )

    def made(self, runtime: Runtime, folder: Path, build: BuildRun, *, checkpoints: bool) -> Made:
        """Train; what came of it, as other models tell it."""
        result = self.run(runtime, folder, build.log_metrics, checkpoints=checkpoints)
        return Made(result.model_dir, {}, dict(result.metrics), _result_tags(result), {})


def pretraining_settings(statement: BuildModel) -> PretrainingSettings:
    """The settings that the options of a BUILD MODEL of a base model ask for."""
    return PretrainingSettings(**text_settings(statement))


def pretraining_from(
    name: str,
    statement: BuildModel,
    training_set: TrainingSet,
    runtime: Runtime,
    *,
    base: ResolvedBase | None = None,
) -> Pretraining:
    """The pre-training of ``statement`` on these texts.

    Args:
        name: Of the model.
        statement: Has the options.
        training_set: The texts.
        runtime: Where models are.
        base: The base model, where it is not what the statement's name means now.

    Raises:
        BaseModelUnavailable: no source has the base model now.
        UnsupportedStatement: its pre-training cannot go on here.
    """
    if base is None:
        base = base_of(statement, runtime.registry, runtime.workspace)
    fingerprint = fingerprint_of(statement, training_set.identity, base.identity, None)
    return Pretraining(name, statement, training_set, base, fingerprint)


def materialize(node: Node, statement: BuildModel, runtime: Runtime) -> Outcome:
    """Pre-train and register a version of the base model; it is what is built on from then on.

    In an incremental run a version that was made from the very same is not made again.

    Raises:
        BaseModelUnavailable, UnsupportedStatement: the base model cannot be had, or not be gone on with.
        TrainingDataError: texts or a base that no pre-training can go on with.
    """
    started = time.perf_counter()
    registry = runtime.registry
    again = asked_again()
    if isinstance(again, Pretraining):
        training = again
    else:
        training = pretraining_from(node.name, statement, kept_rows(node.name, runtime), runtime)
    # Two of the same would share their checkpoints; and the second may find the first one's version.
    with runtime.workspace.lock(f"training-{training.fingerprint}"):
        known = kept_version(training.name, training.fingerprint, runtime) if runtime.incremental else None
        pictures: dict[str, bytes] = {}
        if known is None:
            version, pictures = _pretrained(training, runtime)
        else:
            version = registry.promote(known.name, known.version)
    seconds = round(time.perf_counter() - started, 1)
    return Outcome(
        data_version=version.data_version,
        summary=_summary(version, known is not None),
        pictures=pictures,
        facts={
            "model version": version.version,
            "objective": REPLACED_TOKEN_DETECTION,
            "base model": training.base.describe()
            + (f" ({training.base.note})" if training.base.note else ""),
            "texts train": version.count("thano.rows_train"),
            "texts eval": version.count("thano.rows_eval"),
            "tokens read": version.count("thano.tokens"),
            "tokens of a window": version.count("thano.window"),
            **{name.replace("_", " "): value for name, value in version.metrics.items()},
            "device": " ".join(filter(None, map(version.tags.get, ("thano.device", "thano.precision")))),
            "seconds": seconds,
        },
        links={
            "MLflow run": registry.run_url(version.run_id),
            "MLflow model": registry.model_url(training.name, version.version),
        },
        result=_result_row(version, seconds),
        mlflow_run_id=version.run_id,
        details={
            "version": version.version,
            "fingerprint": training.fingerprint,
            "base": training.base.identity,
            "training_set": training.training_set.identity,
            "answers": version.data_version,
        },
    )


def _pretrained(training: Pretraining, runtime: Runtime) -> tuple[ModelVersion, dict[str, bytes]]:
    """Pre-train and register a version; returns it and the picture of its losses."""
    from thano_assets.learning import figures

    training_set, base = training.training_set, training.base
    if base.note:
        runtime.progress.message(base.note)
    tags = {
        OBJECTIVE_TAG: REPLACED_TOKEN_DETECTION,
        "thano.statement": training.statement.text.strip(),
        "thano.asset_key": f"{NodeKind.MODEL.value}/{training.name}",
        "thano.fingerprint": training.fingerprint,
        "thano.training_set": training_set.fingerprint,
        "thano.training_set_identity": training_set.identity,
        **base_tags(base),
        "dagster.run_id": runtime.run_id or "",
    }
    params: dict[str, Any] = {
        "base": base.name,
        "objective": REPLACED_TOKEN_DETECTION,
        **training.settings.as_dict(),
        "text_col": training_set.text_col,
    }
    with (
        runtime.registry.build(training.name, tags=tags, params=params) as build,
        tempfile.TemporaryDirectory(prefix="thano-model-") as folder,
    ):
        build.log_dataset(
            name=f"training set of {training.name}",
            digest=training_set.fingerprint,
            rows=training_set.rows,
            source=str(training_set.snapshot(runtime.workspace)),
        )
        result = training.run(runtime, Path(folder) / "model", build.log_metrics)
        pictures = {"pre-training curve": figures.pretraining_curve(result.history)}
        for name, png in pictures.items():
            build.log_figure(name.replace(" ", "_") + ".png", png)
        version = build.register(
            result.model_dir, labels=None, metrics=result.metrics, tags=tags | _result_tags(result)
        )
    return version, pictures


def _result_tags(result: PretrainingResult) -> dict[str, str]:
    """What a pre-training gave, as tags of its version: the weights' digest, and where it ran."""
    weights = f"{weights_digest(result.model_dir)}:{model_type(result.model_dir)}"
    return {
        "thano.data_version": hashlib.sha256(weights.encode()).hexdigest()[:32],
        "thano.window": str(result.max_length),
        "thano.tokens": str(result.tokens),
        **computed_tags(
            result.rows_train, result.rows_eval, result.device, result.precision, result.library_versions
        ),
    }


def _summary(version: ModelVersion, known: bool) -> str:
    made = f"base model {version.name}: version {version.version}"
    if known:
        made += ", which was made from the very same before"
    read = f"{version.count('thano.tokens'):,} tokens of {version.count('thano.rows_train'):,} texts read"
    found = version.metrics.get("replaced_f1")
    if found is None:
        return f"{made}, {read}, none held out"
    held = version.count("thano.rows_eval")
    return f"{made}, {read}; F1 of finding replaced tokens {found:.3f} on {held:,} held-out texts"


def _result_row(version: ModelVersion, seconds: float) -> pa.Table:
    import pyarrow as pa

    def number(name: str) -> pa.Array:
        value = version.metrics.get(name)
        return pa.array([None if value is None else round(float(value), 6)], pa.float64())

    return pa.table(
        {
            "model": [version.name],
            "version": [version.version],
            "status": ["registered"],
            "texts_train": [version.count("thano.rows_train")],
            "texts_eval": [version.count("thano.rows_eval")],
            "tokens": [version.count("thano.tokens")],
            "discriminator_loss": number("discriminator_loss"),
            "replaced_f1": number("replaced_f1"),
            "generator_loss": number("generator_loss"),
            "generator_accuracy": number("generator_accuracy"),
            "seconds": [seconds],
            "device": [version.tags.get("thano.device", "")],
            "run_id": [version.run_id],
        }
    )
