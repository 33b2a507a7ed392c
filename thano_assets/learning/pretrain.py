"""Continued pre-training of an encoder on unlabelled text: ELECTRA's replaced token detection.

A small generator fills in masked tokens; the encoder learns to tell, token by token, what was replaced
(Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators"). 15 % of
the tokens are masked, the generator is a quarter as wide and as deep as the encoder, and the encoder's loss
counts 50 times the generator's, as there.

One thing differs, because the encoder is not new here: the generator reads the encoder's embeddings without
changing them. Tied both ways, the losses of an untrained generator would pull the embeddings of a trained
encoder apart (the "tug-of-war" of He et al. 2021, DeBERTaV3, section 3.2).
"""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ..errors import TrainingDataError
from ..progress import Progress
from . import device as places
from .base_model import BaseModel
from .checkpoint import Checkpoints, training_identity
from .device_memory import in_smaller_parts, memory_errors
from .encode import Encoder, limit, padded, shuffled_batches
from .launch import run_in_processes, wanted_processes
from .loop import OnMetrics
from .model_folder import new_folder
from .optim import rate_factor
from .pooling_layer import pooling_layer
from .process_group import ProcessGroup
from .recipes import Recipe
from .replaced_tokens import COUNTED, DISCRIMINATOR_WEIGHT, ReplacedTokenDetection
from .settings import PRETRAINING_VERSION, PretrainingSettings
from .transformers_logging import quiet_transformers

MASKED = 0.15  # share of the tokens that the generator has to fill in
_HIDDEN = 0.85  # of those, the share shown to it as [MASK]; the others it sees as they are
_GENERATOR_RATE = 5.0  # the generator starts from nothing and learns so much faster
_LEARNING_RATE = 2e-4
_WINDOW = 128  # tokens, as ELECTRA's small models were trained on
_FEWEST = 16  # tokens of a window worth reading, where a text has another
_MOST_HELD_OUT = 1024  # windows
_LOGGED_POINTS = 60
_STATES_APART = 300.0  # seconds between two states kept for going on after a kill
_SHAPES = ("electra", "bert")
_LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "numpy")


@dataclass(frozen=True)
class PretrainingResult:
    """What a pre-training gave.

    Attributes:
        model_dir: Hugging Face folder of the encoder and its tokenizer, loadable by ``AutoModel`` and, with a
            new head, by ``AutoModelForSequenceClassification``.
        rows_train, rows_eval: texts trained on and held out.
        tokens: tokens read while training, all epochs together, padding not counted.
        metrics: on windows of the held-out texts (absent without any): generator_loss and
            generator_accuracy (of the masked tokens), discriminator_loss and discriminator_accuracy (of all
            tokens), replaced_precision, replaced_recall and replaced_f1; train_loss of the last epoch.
        history: ``step, epoch, loss, generator_loss, discriminator_loss, learning_rate, tokens_per_second``.
        seconds: wall time of this call.
        device, precision: where and how it was computed.
        max_length: tokens of a window.
        settings: everything resolved.
        library_versions: of the libraries that computed it.
    """

    model_dir: Path
    rows_train: int
    rows_eval: int
    tokens: int
    metrics: dict[str, float]
    history: list[dict[str, float]]
    seconds: float
    device: str
    precision: str
    max_length: int
    settings: dict[str, Any]
    library_versions: dict[str, str]


def pretrain(
    texts: pa.ChunkedArray | pa.Array | Sequence[str],
    base: BaseModel,
    settings: PretrainingSettings,
    *,
    output_dir: Path,
    checkpoint_dir: Path | None,
    progress: Progress,
    on_metrics: OnMetrics | None = None,
) -> PretrainingResult:
    """Go on with the pre-training of ``base`` on ``texts``.

    The same texts in the same order, base, settings, machine and library versions give the same weights on a
    CPU. After a kill, the same call goes on from the last state in ``checkpoint_dir``.

    Args:
        texts: the texts; none may be missing.
        base: an encoder in ELECTRA's or BERT's layout.
        settings: the user's choices.
        output_dir: the Hugging Face folder to make, at the very end; must not exist.
        checkpoint_dir: where states are kept while training; emptied when it is done. ``None`` keeps none.
        progress: is told what is done.
        on_metrics: called with figures and the optimiser step they belong to.

    Raises:
        TrainingDataError: no texts, or an encoder of another layout.
        TrainingStopped: one of several processes that shared the work ended before its time.
    """
    rows = texts.to_pylist() if isinstance(texts, (pa.ChunkedArray, pa.Array)) else list(texts)
    if not rows:
        raise TrainingDataError("There are no texts to train on.", hint="Check the query after AS.")
    job = PretrainingJob(rows, base, settings, output_dir, checkpoint_dir)
    on_metrics = on_metrics or (lambda figures, step: None)
    if (processes := wanted_processes()) > 1:
        return run_in_processes(job, processes, progress, on_metrics)
    return job.run(progress, on_metrics)


@dataclass(frozen=True)
class PretrainingJob:
    """The arguments of :func:`pretrain`, fit to be handed to other processes."""

    texts: list[str]
    base: BaseModel
    settings: PretrainingSettings
    output_dir: Path
    checkpoint_dir: Path | None

    def run(self, progress: Progress, on_metrics: OnMetrics) -> PretrainingResult:
        """Train in this process, which may be one of several that do so together."""
        started = time.monotonic()
        with (
            memory_errors("The base model, with what its training keeps,"),
            quiet_transformers(),
            torch.random.fork_rng(),
        ):
            torch.manual_seed(self.settings.seed)
            pretraining = _Pretraining(self.texts, self.base, self.settings, progress)
            return pretraining.run(self.output_dir, self.checkpoint_dir, on_metrics, started)


@dataclass
class _State:
    """Where a pre-training stands; a checkpoint keeps it as JSON."""

    step: int = 0
    tokens: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    recent: list[list[float]] = field(default_factory=list)  # generator's and encoder's loss, step by step


class _Pretraining:
    """One pre-training: its windows, models and judge."""

    def __init__(
        self, texts: list[str], base: BaseModel, settings: PretrainingSettings, progress: Progress
    ) -> None:
        self.texts, self.base, self.settings, self.progress = texts, base, settings, progress
        self.source = base.folder(progress)
        config = AutoConfig.from_pretrained(self.source, trust_remote_code=False)
        if config.model_type not in _SHAPES:
            raise TrainingDataError(
                f"The base {base.name!r} is a {config.model_type.upper()} model, which replaced token "
                "detection does not serve here.",
                hint="Use ElectraEn, ElectraKo, BertEn or another encoder in ELECTRA's or BERT's layout.",
            )
        self.tokenizer = AutoTokenizer.from_pretrained(self.source, trust_remote_code=False)
        if self.tokenizer.mask_token_id is None:
            raise TrainingDataError(
                f"The tokenizer of the base {base.name!r} has no token for masking.", hint="Use another base."
            )
        self.encoder = Encoder(
            self.tokenizer, min(settings.max_length or _WINDOW, limit(self.tokenizer, config))
        )
        self.special = set(self.tokenizer.all_special_ids)
        rate = settings.learning_rate or _LEARNING_RATE
        self.recipe = Recipe(rate, warmup=0.06, dropout=0.0, max_length=self.encoder.max_length)
        self.accelerator = Accelerator()
        self.group = ProcessGroup(self.accelerator)
        self.place = self.group.describe(places.describe(self.accelerator.device))
        self.precision = places.precision(self.accelerator.device)

    def run(
        self, output_dir: Path, checkpoint_dir: Path | None, on_metrics: OnMetrics, started: float
    ) -> PretrainingResult:
        """Train, judge and save."""
        settings = self.settings
        train_rows, eval_rows = self._hold_out()
        self.progress.message(
            f"{self.base.describe()}; {len(train_rows):,} texts to train on, {len(eval_rows):,} held out; "
            f"{self.place}, {self.precision}"
        )
        windows = self._windows(train_rows)
        held = self._windows(eval_rows)[:_MOST_HELD_OUT]
        attention = "eager" if self.accelerator.device.type == "cpu" else None  # see learning/train.py
        model = self._model(attention).to(self.accelerator.device)
        state = self._optimise(model, windows, checkpoint_dir, on_metrics)
        metrics = self._judge(model, held) if held else {}
        points = [point for point in state.history if point["epoch"] > settings.epochs - 1]
        if points:
            metrics["train_loss"] = float(np.mean([point["loss"] for point in points]))
        if self.group.leads:
            self._save(model.encoder, output_dir)
            if checkpoint_dir is not None:
                Checkpoints(checkpoint_dir, "").clear()
        return PretrainingResult(
            model_dir=output_dir,
            rows_train=len(train_rows),
            rows_eval=len(eval_rows),
            tokens=state.tokens,
            metrics=metrics,
            history=state.history,
            seconds=time.monotonic() - started,
            device=self.place,
            precision=self.precision,
            max_length=self.encoder.max_length,
            settings=settings.as_dict()
            | self.recipe.as_dict()
            | {"masked": MASKED, "trainer_version": PRETRAINING_VERSION},
            library_versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
        )

    # ------------------------------------------------------------------------------------ rows and the model

    def _hold_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers to train on and to judge by."""
        order = np.random.default_rng(self.settings.seed).permutation(len(self.texts))
        held = math.floor(len(order) * self.settings.eval_fraction)
        return np.sort(order[held:]), np.sort(order[:held])

    def _windows(self, rows: np.ndarray) -> list[np.ndarray]:
        """Token ids of consecutive windows of the texts, special tokens around each."""
        whole = Encoder(self.tokenizer, 1 << 30)
        room = self.encoder.head + self.encoder.tail
        found = []
        with self.progress.task("Reading", total=len(rows)) as task:
            for start in range(0, len(rows), 1000):
                part = [self.texts[row] for row in rows[start : start + 1000]]
                for ids in whole.encode(part).ids:
                    marked = whole.special(len(ids))
                    first = int(np.argmin(marked)) if not marked.all() else len(ids)
                    body = ids[~marked]
                    before, after = ids[:first], ids[first + len(body) :]
                    for place in range(0, max(len(body), 1), room):
                        piece = body[place : place + room]
                        if place and len(piece) < _FEWEST:
                            continue
                        found.append(np.concatenate([before, piece, after]))
                task.advance(len(part))
        return found

    def _model(self, attention: str | None) -> ReplacedTokenDetection:
        config = AutoConfig.from_pretrained(self.source, trust_remote_code=False)
        rates = {
            name: 0.0
            for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
            if hasattr(config, name)
        }
        more: dict[str, Any] = {"attn_implementation": attention} if attention else {}
        if config.model_type == "bert":
            more["add_pooling_layer"] = False
        encoder = AutoModel.from_pretrained(
            self.source, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, **rates, **more
        )
        self.pooled = not encoder.encoder.layer[-1].attention.self.query.weight.any()
        if self.pooled:
            # The packaged base's last layer takes the mean of the tokens; what is learnt of single tokens is
            # learnt below it, and the layer is put back at the end.
            encoder.encoder.layer = encoder.encoder.layer[:-1]
            encoder.config.num_hidden_layers -= 1
        return ReplacedTokenDetection(encoder, self.tokenizer.mask_token_id, attention)

    def _save(self, encoder: Any, output_dir: Path) -> None:
        from safetensors.torch import save_file

        weights = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
        config = encoder.config
        if self.pooled:
            below = {name: value.numpy() for name, value in weights.items()}
            added = pooling_layer(below, config.num_hidden_layers)
            weights |= {name: torch.from_numpy(value) for name, value in added.items()}
            config.num_hidden_layers += 1
        kept = AutoConfig.from_pretrained(self.source, trust_remote_code=False)
        config.update({name: value for name, value in kept.to_dict().items() if "dropout" in name})
        config.architectures = [type(encoder).__name__]
        with new_folder(output_dir) as folder:
            config.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    # ---------------------------------------------------------------------------------------------- training

    def _optimise(
        self,
        model: ReplacedTokenDetection,
        windows: list[np.ndarray],
        checkpoint_dir: Path | None,
        on_metrics: OnMetrics,
    ) -> _State:
        settings, accelerator, recipe = self.settings, self.accelerator, self.recipe
        steps_an_epoch = math.ceil(len(windows) / settings.batch_size)
        total = steps_an_epoch * settings.epochs
        encoder = [*model.encoder.parameters(), *model.head.parameters()]
        generator = [*model.generator.parameters(), *model.fill.parameters(), model.fill_bias]
        groups = [
            {
                "params": [p for p in part if (p.dim() >= 2) == matrices],
                "lr": recipe.learning_rate * factor,
                "weight_decay": recipe.weight_decay if matrices else 0.0,
            }
            for part, factor in ((encoder, 1.0), (generator, _GENERATOR_RATE))
            for matrices in (True, False)
        ]
        optimizer = torch.optim.AdamW(groups, eps=recipe.adam_epsilon, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor(total, recipe))
        # For evaluation, to Accelerate: it is the group that adds up gradients.
        prepared = accelerator.prepare_model(model, evaluation_mode=True)
        steps = accelerator.prepare(optimizer)
        accelerator.register_for_checkpointing(schedule)
        checkpoints = Checkpoints(checkpoint_dir, self._identity(), seconds=_STATES_APART)
        self.group.same_weights(trained := [*encoder, *generator])
        state = _State(**(checkpoints.restore(accelerator) or {}))
        if state.step:
            self.progress.message(f"Going on from step {state.step:,} of {total:,}")
        every = max(1, total // _LOGGED_POINTS)
        lengths = np.fromiter((len(ids) for ids in windows), dtype=np.int64, count=len(windows))
        prepared.train()
        with self.progress.task("Pre-training", total=len(windows) * settings.epochs, unit="windows") as task:
            if state.step:
                task.advance(min(state.step * settings.batch_size, len(windows) * settings.epochs))
            clock, read = time.monotonic(), 0
            for epoch in range(state.step // steps_an_epoch, settings.epochs):
                batches = shuffled_batches(lengths, settings.batch_size, settings.seed, epoch)
                for batch in batches[state.step - epoch * steps_an_epoch :]:
                    losses_here = self._step(prepared, [windows[row] for row in batch], state.step)
                    self.group.add_gradients(trained)
                    # Each on its own: the encoder's loss counts 50 times the generator's.
                    accelerator.clip_grad_norm_(encoder, recipe.clip)
                    accelerator.clip_grad_norm_(generator, recipe.clip)
                    steps.step()
                    rate = float(schedule.get_last_lr()[0])
                    schedule.step()
                    steps.zero_grad()
                    state.step += 1
                    read += int(lengths[batch].sum())
                    state.tokens += int(lengths[batch].sum())
                    state.recent = [*state.recent[1 - every :], self.group.add(losses_here).tolist()]
                    losses = np.mean(state.recent, axis=0)
                    speed = read / max(time.monotonic() - clock, 1e-9)
                    task.advance(len(batch), loss=float(losses[1]), tokens_per_second=speed)
                    if state.step % every == 0 or state.step == total:
                        point = {
                            "epoch": state.step / steps_an_epoch,
                            "loss": float(losses[0] + DISCRIMINATOR_WEIGHT * losses[1]),
                            "generator_loss": float(losses[0]),
                            "discriminator_loss": float(losses[1]),
                            "learning_rate": rate,
                            "tokens_per_second": speed,
                        }
                        state.history.append({"step": state.step} | point)
                        on_metrics(point, state.step)
                    checkpoints.save(accelerator, self.group, lambda: vars(state))
        accelerator.free_memory()
        return state

    def _step(self, model: Any, rows: list[np.ndarray], step: int) -> np.ndarray:
        """Gradients of this process's part of a batch, and its part of the generator's and encoder's loss."""
        batch, counts = self._batch(rows, step)
        number, width = batch["ids"].shape
        if not number:
            return np.zeros(2)

        def gradients(budget: int) -> np.ndarray:
            # A processor computes the batch as a whole: its memory is no bound here.
            size = number if self.accelerator.device.type == "cpu" else max(1, budget // width)
            losses = np.zeros(2)
            for start in range(0, number, size):
                part = {name: value[start : start + size] for name, value in batch.items()}
                shares = (
                    float(part["chosen"].sum()) / counts["masked"],
                    float(part["present"].sum()) / counts["tokens"],
                )
                with places.autocast(self.accelerator.device, self.precision):
                    found = model(**part, shares=shares)
                self.accelerator.backward(found["loss"])
                losses += (
                    np.array([float(found[f"{name}_loss"]) for name in ("generator", "discriminator")])
                    * shares
                )
            return losses

        return in_smaller_parts(
            self.accelerator.device, number, width, gradients, partial(model.zero_grad, set_to_none=True)
        )

    def _batch(self, rows: list[np.ndarray], step: int) -> tuple[dict[str, Any], dict[str, int]]:
        """What :meth:`ReplacedTokenDetection.forward` takes for this process's part of the rows, and counts
        of the whole batch; the same step always draws the same.
        """
        ids, mask = padded(rows, self.encoder.pad_id, self.encoder.max_length)
        draw = np.random.default_rng([self.settings.seed, step])
        ordinary = (mask == 1) & ~np.isin(ids, list(self.special))
        chosen = ordinary & (draw.random(ids.shape) < MASKED)
        if not chosen.any():  # a batch of one short text: one of its tokens, whichever
            chosen.flat[int(np.argmax(ordinary if ordinary.any() else mask == 1))] = True
        shown = chosen & (draw.random(ids.shape) >= _HIDDEN)
        points = torch.zeros(ids.shape)
        seeded = torch.Generator().manual_seed(int(draw.integers(1 << 62)))
        points[torch.from_numpy(chosen)] = torch.rand(int(chosen.sum()), generator=seeded)
        mine = self.group.share(np.arange(len(rows)))
        tensors = {"ids": ids, "present": mask, "chosen": chosen, "shown": shown, "drawn": points.numpy()}
        place = self.accelerator.device
        return (
            {name: torch.from_numpy(value[mine]).to(place) for name, value in tensors.items()},
            {"masked": int(chosen.sum()), "tokens": int(mask.sum())},
        )

    def _judge(self, model: ReplacedTokenDetection, windows: list[np.ndarray]) -> dict[str, float]:
        """Figures on held-out windows; see :attr:`PretrainingResult.metrics`."""
        model.eval()
        sums: dict[str, float] = {}
        size = self.settings.batch_size
        for number, start in enumerate(range(0, len(windows), size)):
            batch, _ = self._batch(windows[start : start + size], number)
            if not len(batch["ids"]):
                continue
            with torch.inference_mode(), places.autocast(self.accelerator.device, self.precision):
                found = {name: float(value) for name, value in model(**batch).items()}
            found["generator_loss"] *= found["masked"]
            found["discriminator_loss"] *= found["tokens"]
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value
        together = self.group.add(np.array([sums.get(name, 0.0) for name in COUNTED]))
        sums = dict(zip(COUNTED, together.tolist(), strict=True))
        precision = sums["caught"] / max(sums["flagged"], 1)
        recall = sums["caught"] / max(sums["replaced"], 1)
        wrong = sums["flagged"] + sums["replaced"] - 2 * sums["caught"]
        return {
            "generator_loss": sums["generator_loss"] / sums["masked"],
            "generator_accuracy": sums["filled"] / sums["masked"],
            "discriminator_loss": sums["discriminator_loss"] / sums["tokens"],
            "discriminator_accuracy": 1 - wrong / sums["tokens"],
            "replaced_precision": precision,
            "replaced_recall": recall,
            "replaced_f1": 2 * precision * recall / max(precision + recall, 1e-9),
        }

    def _identity(self) -> str:
        facts = (self.base.identity, self.settings, self.recipe, PRETRAINING_VERSION)
        return training_identity(self.texts, [""] * len(self.texts), facts)
