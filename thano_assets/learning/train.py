"""Fine-tuning of a sequence classifier: any number of classes, any Transformers encoder.

The loop is our own, over Accelerate (device, precision, checkpoints) and Transformers (models, tokenizers).
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from ..errors import TrainingDataError
from ..progress import Progress
from . import device as places
from .base_model import BaseModel
from .baseline import linear_baseline, majority_accuracy
from .calibration import at_temperature, fit_temperature, scale_head
from .checkpoint import Checkpoints, training_identity
from .device_memory import memory_errors
from .encode import Encoded, Encoder, limit
from .first_token import trained_by_first_token
from .frozen_encoder import FeatureCache, frozen_features, head_only
from .infer import batch_tensors, logits_by_batch, softmax
from .launch import run_in_processes, wanted_processes
from .loop import OnMetrics, Rows, balanced_weights, fit
from .metrics import class_indices, confusion, scores
from .model_folder import new_folder
from .process_group import ProcessGroup
from .recipes import Recipe, recipe_for
from .settings import CODE_VERSION, TrainingSettings
from .transformers_logging import quiet_transformers

_LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "numpy")


@dataclass(frozen=True)
class TrainingResult:
    """What a training gave.

    Attributes:
        model_dir: Hugging Face folder of the model, loadable by ``AutoModelForSequenceClassification``;
            ``Path()`` where none was asked for.
        classes: labels in the order of the model's outputs.
        rows_train, rows_eval: rows trained on and held out.
        metrics: accuracy, f1_macro, precision_macro, recall_macro and loss on the held-out rows (absent
            without any), and train_loss, the mean loss over the last epoch's steps.
        baseline_accuracy: of TF-IDF with logistic regression on the held-out rows, or ``None``.
        majority_accuracy: of always answering the most frequent label, or ``None`` without held-out rows.
        history: ``step, epoch, loss, learning_rate, rows_per_second`` while training and ``step, epoch,
            eval_loss, eval_accuracy, eval_f1_macro`` at the end of each epoch.
        confusion: counts of held-out rows by true (rows) and predicted (columns) class; empty without any.
        held_out: probabilities of the held-out rows, in the rows' order, float32 of shape (rows_eval, C).
        truncated: texts that were longer than ``max_length``.
        max_length: tokens read of a text.
        seconds: wall time of this call.
        device, precision: where and how it was computed.
        settings: everything resolved: the recipe's values with the user's settings put in.
        library_versions: of the libraries that computed it.
        temperature: what the logits were divided by, see :mod:`.calibration`; 1 where they were not.
    """

    model_dir: Path
    classes: list[str]
    rows_train: int
    rows_eval: int
    metrics: dict[str, float]
    baseline_accuracy: float | None
    majority_accuracy: float | None
    history: list[dict[str, float]]
    confusion: list[list[int]]
    held_out: np.ndarray
    truncated: int
    max_length: int
    seconds: float
    device: str
    precision: str
    settings: dict[str, Any]
    library_versions: dict[str, str]
    temperature: float = 1.0


def train(
    texts: pa.ChunkedArray | pa.Array | Sequence[str],
    labels: Sequence[str],
    classes: Sequence[str],
    base: BaseModel,
    settings: TrainingSettings,
    *,
    output_dir: Path | None,
    checkpoint_dir: Path | None,
    progress: Progress,
    on_metrics: OnMetrics | None = None,
    init_dir: Path | None = None,
    features: FeatureCache | None = None,
) -> TrainingResult:
    """Train a classifier of ``classes`` on ``texts`` and judge it on the rows held out.

    The same rows in the same order, base, settings, machine and library versions give the same weights on
    a CPU. After a kill, the same call goes on from the last state in ``checkpoint_dir``.

    Args:
        texts: the texts; none may be missing.
        labels: the label of each text, one of ``classes``.
        classes: all labels, in the order that the model's outputs will have.
        base: the base model.
        settings: the user's choices.
        output_dir: the Hugging Face folder to make, at the very end; must not exist. ``None`` makes none.
        checkpoint_dir: where states are kept while training; emptied when it is done. ``None`` keeps none.
        progress: is told what is done.
        on_metrics: called with figures and the optimiser step they belong to.
        init_dir: start from this model's weights, head included, instead of from the base's.
        features: with ``train='head'``, what the encoder gave for texts before.

    Raises:
        TrainingDataError: too few rows or classes to train on.
        TrainingStopped: one of several processes that shared the work ended before its time.
    """
    rows = texts.to_pylist() if isinstance(texts, (pa.ChunkedArray, pa.Array)) else list(texts)
    job = TrainingJob(rows, list(labels), list(classes), base, settings, output_dir, checkpoint_dir, init_dir)
    job.check()
    on_metrics = on_metrics or (lambda figures, step: None)
    if settings.train == "full" and (processes := wanted_processes()) > 1:
        return run_in_processes(job, processes, progress, on_metrics)
    return job.run(progress, on_metrics, features)


@dataclass(frozen=True)
class TrainingJob:
    """The arguments of :func:`train`, fit to be handed to other processes."""

    texts: list[str]
    labels: Sequence[str]
    classes: list[str]
    base: BaseModel
    settings: TrainingSettings
    output_dir: Path | None
    checkpoint_dir: Path | None
    init_dir: Path | None

    def check(self) -> None:
        """See :func:`train`."""
        _checked(self.texts, self.labels, self.classes)

    def run(
        self, progress: Progress, on_metrics: OnMetrics, features: FeatureCache | None = None
    ) -> TrainingResult:
        """Train in this process, which may be one of several that do so together."""
        started = time.monotonic()
        with (
            memory_errors("The model, with what its training keeps,"),
            quiet_transformers(),
            torch.random.fork_rng(),
        ):
            torch.manual_seed(self.settings.seed)
            training = _Training(self, progress, features)
            return training.run(self.output_dir, self.checkpoint_dir, on_metrics, started)


def recipe_and_encoder(
    base: BaseModel, settings: TrainingSettings, init_dir: Path | None, progress: Progress
) -> tuple[Recipe, Encoder, int]:
    """How a training with these settings goes and how it reads a text, and the most tokens it could read."""
    source = init_dir or base.folder(progress)
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if base.max_length and settings.max_length is None:
        settings = replace(settings, max_length=base.max_length)
    recipe = recipe_for(config, settings)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    most = limit(tokenizer, config)
    if init_dir is not None and settings.max_length is None:
        return recipe, Encoder.of_model(tokenizer, config), most  # a child reads as its parent did
    return recipe, Encoder(tokenizer, min(recipe.max_length, most), recipe.head_share), most


def _checked(texts: Sequence[str], labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Class index of each row, shape (N,), when a classifier can be trained on them."""
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts and {len(labels)} labels")
    if not texts:
        raise TrainingDataError("There are no rows to train on.", hint="Check the query after AS.")
    if len(classes) < 2:
        only = f", {classes[0]!r}" if classes else ""
        raise TrainingDataError(
            f"The label column has {len(classes)} class{only}.",
            hint="A classifier needs rows of at least two.",
        )
    truth = class_indices(labels, classes)
    counts = np.bincount(truth, minlength=len(classes))
    if not counts.all():
        absent = classes[int(counts.argmin())]
        raise TrainingDataError(
            f"No row has the label {absent!r}.", hint="Every class needs at least one row to train on."
        )
    return truth


class _Training:
    """One training: its rows, model and judge."""

    def __init__(self, job: TrainingJob, progress: Progress, features: FeatureCache | None) -> None:
        self.texts, self.labels, self.classes = job.texts, job.labels, job.classes
        self.truth = class_indices(job.labels, job.classes)
        self.base, self.settings, self.progress = job.base, job.settings, progress
        self.init_dir, self.features = job.init_dir, features
        self.source = job.init_dir or job.base.folder(progress)
        self.recipe, self.encoder, _ = recipe_and_encoder(job.base, job.settings, job.init_dir, progress)
        self.tokenizer = self.encoder.tokenizer
        self.train_rows, self.eval_rows = job.settings.held_out(self.truth, self.texts)
        self.precision = places.precision(places.device())
        self.accelerator = Accelerator()
        self.group = ProcessGroup(self.accelerator)
        self.place = self.group.describe(places.describe(self.accelerator.device))

    def run(
        self, output_dir: Path | None, checkpoint_dir: Path | None, on_metrics: OnMetrics, started: float
    ) -> TrainingResult:
        """Train, judge and save."""
        recipe, settings, accelerator = self.recipe, self.settings, self.accelerator
        self.progress.message(
            f"{self.base.describe()}; {len(self.train_rows):,} rows to train on, "
            f"{len(self.eval_rows):,} held out; {self.place}, {self.precision}"
        )
        if settings.eval_fraction and not len(self.eval_rows):
            self.progress.warning(
                f"No row is held out, so the model's accuracy is not known: eval_fraction="
                f"{settings.eval_fraction:g} of the distinct texts ({len(set(self.texts)):,} in "
                f"{len(self.texts):,} rows) is none, where each class keeps one to train on."
            )
        encoded = self._encode()
        model = self._load_model().to(accelerator.device)
        checkpoints = Checkpoints(checkpoint_dir, self._identity())
        weights = balanced_weights(self.truth[self.train_rows], len(self.classes))
        rows = Rows(
            self.train_rows,
            encoded.lengths,
            self.truth,
            weights.to(accelerator.device) if settings.class_weight == "balanced" else None,
        )
        judged: list[np.ndarray] = []  # probabilities of the held-out rows, the latest last

        def optimise(
            forward: Callable[[np.ndarray], torch.Tensor],
            predict: Callable[[], np.ndarray],
            side_by_side: bool = False,
        ) -> list[dict[str, float]]:
            def judge() -> dict[str, float]:
                judged.append(predict())
                return scores(self.truth[self.eval_rows], judged[-1])

            history = fit(
                model,
                forward,
                rows,
                recipe,
                settings,
                accelerator,
                self.group,
                precision=self.precision,
                side_by_side=side_by_side,
                checkpoints=checkpoints,
                progress=self.progress,
                judge=judge if len(self.eval_rows) else None,
                on_metrics=on_metrics,
            )
            if settings.early_stopping and len(self.eval_rows):
                judge()  # of the weights that are kept, which need not be the last epoch's
            return history

        # For evaluation, to Accelerate: it is the group that adds up gradients.
        prepared = accelerator.prepare_model(model, evaluation_mode=True)
        if self.group.size > 1:
            torch.manual_seed(settings.seed + self.group.rank)  # each drops out other units
        try:
            if settings.train == "head":
                features = frozen_features(
                    model,
                    self.texts,
                    encoded,
                    self.encoder,
                    self.precision,
                    self.progress,
                    self.features,
                )
                rows.lengths = np.ones_like(rows.lengths)  # every feature is as long as any other
                with head_only(model, features) as forward:
                    history = optimise(forward, lambda: self._predict_frozen(model, forward))
            else:
                with trained_by_first_token(model) as ours:
                    history = optimise(
                        lambda chosen: self._logits(prepared, encoded, chosen),
                        lambda: self._predict(model, encoded),
                        # Random numbers drawn in several threads would come in any order.
                        side_by_side=ours and not recipe.dropout,
                    )
        finally:
            model = accelerator.unwrap_model(prepared)
            accelerator.free_memory()
        temperature = 1.0
        if judged and output_dir is not None and settings.calibrate:
            temperature = fit_temperature(judged[-1], self.truth[self.eval_rows])
            if scale_head(model, temperature):
                judged[-1] = at_temperature(judged[-1], temperature)
            else:
                temperature = 1.0
        metrics, table = self._figures(judged[-1] if judged else None, history)
        baseline, majority = self._baselines() if self.group.leads else (None, None)
        if self.group.leads:
            if output_dir is not None:
                self._save(model, output_dir)
            checkpoints.clear()
        return TrainingResult(
            model_dir=output_dir or Path(),
            classes=self.classes,
            rows_train=len(self.train_rows),
            rows_eval=len(self.eval_rows),
            metrics=metrics,
            baseline_accuracy=baseline,
            majority_accuracy=majority,
            history=history,
            confusion=table,
            held_out=judged[-1] if judged else np.empty((0, len(self.classes)), dtype=np.float32),
            truncated=encoded.truncated,
            max_length=self.encoder.max_length,
            seconds=time.monotonic() - started,
            device=self.place,
            precision=self.precision,
            settings=settings.as_dict()
            | recipe.as_dict()
            | {"max_length": self.encoder.max_length, "trainer_version": CODE_VERSION},
            library_versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
            temperature=temperature,
        )

    # ---------------------------------------------------------------------------------- rows and the model

    def _encode(self) -> Encoded:
        encoded = self.encoder.encode(self.texts)
        if encoded.truncated:
            self.progress.warning(
                f"{encoded.truncated:,} of {len(self.texts):,} texts are longer than "
                f"{self.encoder.max_length} tokens: {self.encoder.describe()}."
            )
        return encoded

    def _identity(self) -> str:
        parent = self.init_dir and self.init_dir.resolve().as_posix()
        facts = (self.base.identity, parent, self.settings, self.recipe, self.classes, CODE_VERSION)
        return training_identity(self.texts, self.labels, facts)

    def _load_model(self) -> Any:
        """The base with a new head of the right size, or the parent model as it is; float32."""
        config = AutoConfig.from_pretrained(self.source, trust_remote_code=False)
        rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout")
        dropout = {name: self.recipe.dropout for name in rates if hasattr(config, name)}
        # On a CPU, attention as plain products trains a quarter faster than the fused kernel, whose backward
        # pass is slow there; elsewhere the library's own choice stands.
        attention = {"attn_implementation": "eager"} if self.accelerator.device.type == "cpu" else {}
        model = AutoModelForSequenceClassification.from_pretrained(
            self.source,
            num_labels=len(self.classes),
            id2label=dict(enumerate(self.classes)),
            label2id={label: place for place, label in enumerate(self.classes)},
            problem_type="single_label_classification",
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            # A base that is itself a classifier, of other classes, lends its encoder only.
            ignore_mismatched_sizes=self.init_dir is None,
            **dropout,
            **attention,
        )
        self.encoder.keep_in(model.config)
        return model

    def _save(self, model: Any, output_dir: Path) -> None:
        self.tokenizer.model_max_length = self.encoder.max_length
        with new_folder(output_dir) as folder:
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    # -------------------------------------------------------------------------------------------- judging

    def _autocast(self) -> torch.autocast:
        return places.autocast(self.accelerator.device, self.precision)

    def _logits(self, model: Any, encoded: Encoded, chosen: np.ndarray) -> torch.Tensor:
        batch = batch_tensors(encoded, chosen, self.encoder.pad_id, self.accelerator.device)
        logits: torch.Tensor = model(**batch).logits
        return logits

    def _predict(self, model: Any, encoded: Encoded) -> np.ndarray:
        """Probabilities of the held-out rows, shape (M, C)."""
        mine = self.group.share(np.arange(len(self.eval_rows)))
        held = encoded.take(self.eval_rows[mine])
        logits = np.zeros((len(self.eval_rows), len(self.classes)), dtype=np.float32)
        for rows, found in logits_by_batch(model, held, self.encoder.pad_id, autocast=self._autocast):
            logits[mine[rows]] = found
        return softmax(self.group.add(logits))

    def _predict_frozen(self, model: Any, forward: Callable[[np.ndarray], torch.Tensor]) -> np.ndarray:
        model.eval()
        with torch.inference_mode(), self._autocast():
            return softmax(forward(self.eval_rows).float().cpu().numpy())

    def _figures(
        self, proba: np.ndarray | None, history: list[dict[str, float]]
    ) -> tuple[dict[str, float], list[list[int]]]:
        last = max((row["epoch"] for row in history), default=0.0) - 1
        losses = [row["loss"] for row in history if "loss" in row and row["epoch"] > last]
        metrics = {"train_loss": float(np.mean(losses))} if losses else {}
        if proba is None:
            return metrics, []
        truth = self.truth[self.eval_rows]
        return scores(truth, proba) | metrics, confusion(truth, proba)

    def _baselines(self) -> tuple[float | None, float | None]:
        if not len(self.eval_rows):
            return None, None
        truth, held = self.truth[self.train_rows], self.truth[self.eval_rows]
        majority = majority_accuracy(truth, held)
        if not self.settings.baseline:
            return None, majority
        texts = self.texts
        linear = linear_baseline(
            [texts[row] for row in self.train_rows],
            truth,
            [texts[row] for row in self.eval_rows],
            held,
            self.settings.seed,
        )
        return linear, majority
