"""The optimisation itself: batches, steps, the loss curve, checkpoints, early stopping."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from ..progress import Progress
from .checkpoint import Checkpoints
from .device import autocast
from .device_memory import in_smaller_parts
from .encode import shuffled_batches
from .optim import (
    BestWeights,
    Gradients,
    WeightAverage,
    add_gradients,
    gradients_by_row,
    parameter_groups,
    rate_factor,
)
from .process_group import ProcessGroup
from .recipes import Recipe
from .settings import TrainingSettings
from .threads import in_threads, workers

Forward = Callable[[np.ndarray], torch.Tensor]
OnMetrics = Callable[[dict[str, float], int], None]
_LOGGED_POINTS = 60  # about how many points of the loss curve a training keeps


@dataclass
class Rows:
    """What is trained on.

    Attributes:
        chosen: row numbers to train on, shape (N,).
        lengths: tokens of every row, indexed by row number.
        truth: class index of every row, int64, indexed by row number.
        weights: weight of each class in the loss, or ``None``.
    """

    chosen: np.ndarray
    lengths: np.ndarray
    truth: np.ndarray
    weights: torch.Tensor | None = None


@dataclass
class LoopState:
    """Where a training stands; a checkpoint keeps it as JSON."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best_loss: float = math.inf
    bad_epochs: int = 0


def balanced_weights(truth: np.ndarray, classes: int) -> torch.Tensor:
    """Weight of each class, the inverse of its share, averaging 1 over the rows; shape (C,)."""
    counts = np.bincount(truth, minlength=classes)
    return torch.tensor(len(truth) / (classes * np.maximum(counts, 1)), dtype=torch.float32)


def fit(
    model: Any,
    forward: Forward,
    rows: Rows,
    recipe: Recipe,
    settings: TrainingSettings,
    accelerator: Accelerator,
    group: ProcessGroup,
    *,
    precision: str,
    side_by_side: bool,
    checkpoints: Checkpoints,
    progress: Progress,
    judge: Callable[[], dict[str, float]] | None,
    on_metrics: OnMetrics,
) -> list[dict[str, float]]:
    """Train ``model`` in place; the history of the loss is returned.

    Args:
        model: on its device already; its trainable parameters are trained.
        forward: logits (B, C) of row numbers (B,), through ``model``.
        rows: what to train on.
        recipe: how fast.
        settings: epochs, batch size, seed, early stopping.
        accelerator: device, backward pass, clipping and the state to keep.
        group: the processes that the rows of each batch are dealt out to.
        precision: ``'bf16'`` or ``'fp32'``.
        side_by_side: whether ``forward`` may be called in several threads at a time; parts of a batch then
            are, each on its share of the processor's cores.
        checkpoints: where states are kept.
        progress: is told about every step.
        judge: loss and accuracy on the held-out rows, or ``None`` without any; asked after each epoch.
        on_metrics: is told each point of the history.
    """
    steps_an_epoch = math.ceil(len(rows.chosen) / settings.batch_size)
    total = steps_an_epoch * settings.epochs
    optimizer = torch.optim.AdamW(
        parameter_groups(model, recipe, recipe.learning_rate),
        eps=recipe.adam_epsilon,
        fused=all(parameter.is_floating_point() for parameter in model.parameters()),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor(total, recipe))
    prepared = accelerator.prepare(optimizer)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = Gradients(trained)
    group.same_weights(trained)
    average, best = WeightAverage(trained), BestWeights(trained)
    accelerator.register_for_checkpointing(schedule, average, best)
    loss_of = torch.nn.CrossEntropyLoss(weight=rows.weights)
    truth = torch.from_numpy(rows.truth)
    averaged_from = math.floor(total * (1 - (0.0 if settings.early_stopping else recipe.average)))

    state = LoopState(**(checkpoints.restore(accelerator) or {}))
    every = max(1, total // _LOGGED_POINTS)
    on_cpu = accelerator.device.type == "cpu"

    def note(point: dict[str, float]) -> None:
        point = {"epoch": state.step / steps_an_epoch} | point
        state.history.append({"step": state.step} | point)
        on_metrics(point, state.step)

    def loss_in(part: tuple[np.ndarray, float]) -> torch.Tensor:
        chosen, share = part
        with autocast(accelerator.device, precision):
            logits = forward(chosen)
        target = truth[torch.from_numpy(chosen)].to(logits.device)
        piece: torch.Tensor = loss_of(logits.float(), target) * share
        return piece

    def gradients_in(part: tuple[np.ndarray, float]) -> tuple[float, tuple[torch.Tensor | None, ...]]:
        piece = loss_in(part)
        return float(piece.detach()), torch.autograd.grad(piece, trained, allow_unused=True)

    def backward(batch: np.ndarray, mine: np.ndarray, budget: int) -> torch.Tensor:
        """Gradients of this process's rows of a batch, and what they add to its loss."""
        # Operations on a batch that is larger than one part keep all cores busy by themselves.
        small = side_by_side and len(mine) * rows.lengths[mine].max(initial=0) <= budget
        at_a_time = max(1, min(workers(), len(mine))) if small else 1
        parts = _parts(batch, mine, rows, truth, budget, at_a_time)
        loss = torch.zeros((), dtype=torch.float64 if on_cpu else torch.float32)
        if at_a_time == 1:
            for part in parts:
                piece = loss_in(part)
                accelerator.backward(piece)
                loss = loss.to(piece.device) + piece.detach()
        else:
            # Added up in the parts' order, so that the same rows give the same weights.
            for value, found in in_threads(gradients_in, parts, at_a_time):
                loss += value
                add_gradients(trained, found)
        return loss

    # A GPU computes while the next batch is made ready: its losses are read one step later.
    unread: deque[torch.Tensor] = deque()

    def read_losses(leave: int) -> None:
        while len(unread) > leave:
            loss = float(unread.popleft())
            state.losses.append(float(group.add(np.array([loss]))[0]) if group.size > 1 else loss)

    def values() -> dict[str, Any]:
        read_losses(leave=0)
        return vars(state)

    if state.step:
        progress.message(f"Going on from step {state.step:,} of {total:,}")
    with (
        gradients_by_row(model, on_cpu and group.size == 1),
        progress.task("Training", total=len(rows.chosen) * settings.epochs) as task,
    ):
        epoch = state.step // steps_an_epoch
        done = epoch * len(rows.chosen) + min(
            (state.step % steps_an_epoch) * settings.batch_size, len(rows.chosen)
        )
        if done:
            task.advance(done)
        seen, clock = 0, time.monotonic()
        while epoch < settings.epochs and not _stopped(state, settings):
            batches = shuffled_batches(rows.lengths[rows.chosen], settings.batch_size, settings.seed, epoch)
            model.train()
            for batch in batches[state.step - epoch * steps_an_epoch :]:
                chosen = rows.chosen[batch]
                mine = group.share(chosen)
                unread.append(
                    in_smaller_parts(
                        accelerator.device,
                        len(mine),
                        int(rows.lengths[mine].max(initial=1)),
                        partial(backward, chosen, mine),
                        gradients.clear,
                    )
                )
                accelerator.unscale_gradients()
                group.add_gradients(trained)
                gradients.clip(recipe.clip)
                prepared.step()
                rate = float(max(schedule.get_last_lr()))
                schedule.step()
                gradients.clear()
                state.step += 1
                if state.step > averaged_from:
                    average.update()
                noted = state.step % every == 0 or state.step == total
                read_losses(leave=0 if on_cpu or noted or not state.losses else 1)
                seen += len(chosen)
                recent = float(np.mean(state.losses[-every:]))
                speed = seen / max(time.monotonic() - clock, 1e-9)
                task.advance(len(chosen), loss=recent, rows_per_second=speed)
                if noted:
                    note({"loss": recent, "learning_rate": rate, "rows_per_second": speed})
                if state.step % steps_an_epoch:
                    checkpoints.save(accelerator, group, values)
            epoch += 1
            if epoch == settings.epochs:
                average.apply()
            if judge is not None:
                before = time.monotonic()
                figures = judge()
                clock += time.monotonic() - before  # the time to judge is none of the training's speed
                note({f"eval_{name}": figures[name] for name in ("loss", "accuracy", "f1_macro")})
                if settings.early_stopping:
                    if figures["loss"] < state.best_loss:
                        state.best_loss, state.bad_epochs = figures["loss"], 0
                        best.keep()
                    else:
                        state.bad_epochs += 1
            if epoch < settings.epochs:
                checkpoints.save(accelerator, group, values, now=True)
    if settings.early_stopping:
        best.apply()
        if state.step < total:
            progress.message(f"Stopped early after {epoch} of {settings.epochs} epochs")
    return state.history


def _parts(
    batch: np.ndarray, mine: np.ndarray, rows: Rows, truth: torch.Tensor, budget: int, at_a_time: int
) -> Iterator[tuple[np.ndarray, float]]:
    """This process's rows of a batch in parts, each with its share of the batch's mean loss.

    The gradient of the whole is the sum of the parts'. A part has at most ``budget`` padded tokens, and so
    much memory a step takes, however large the batch; or, where several are computed at a time, all of them.
    """
    if not len(mine):
        return
    size = max(1, budget // int(rows.lengths[mine].max()))
    if at_a_time == 1 and len(mine) == len(batch) <= size:
        yield batch, 1.0
        return

    def weight(some: np.ndarray) -> torch.Tensor:
        if rows.weights is None:
            return torch.tensor(float(len(some)))
        return rows.weights.cpu()[truth[torch.from_numpy(some)]].sum()

    whole = weight(batch)
    if at_a_time > 1:  # rows are sorted by length, and those computed at a time are to be alike in it
        parts = [mine[number::at_a_time] for number in range(at_a_time)]
    else:
        parts = [mine[start : start + size] for start in range(0, len(mine), size)]
    for part in parts:
        yield part, float(weight(part) / whole)


def _stopped(state: LoopState, settings: TrainingSettings) -> bool:
    return bool(settings.early_stopping) and state.bad_epochs >= (settings.early_stopping or 0)
