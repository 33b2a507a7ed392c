"""Pictures of a training, as PNG bytes; drawn without a display and without pyplot's global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .fonts import written

if TYPE_CHECKING:
    from .tune import Tuning

_BLUE, _ORANGE, _GREY = "#1f5fa8", "#c8641b", "#6b6b6b"


def training_curve(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss by step, with the held-out loss and accuracy at each epoch's end where there are any."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    steps = [(row["step"], row["loss"]) for row in history if "loss" in row]
    if steps:
        axes.plot(*zip(*steps, strict=True), color=_BLUE, linewidth=1.4, label="training loss")
    judged = [row for row in history if "eval_loss" in row]
    if judged:
        axes.plot(
            [row["step"] for row in judged],
            [row["eval_loss"] for row in judged],
            color=_ORANGE,
            marker="o",
            label="held-out loss",
        )
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("cross-entropy (nats)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if judged:
        right = axes.twinx()
        right.plot(
            [row["step"] for row in judged],
            [row["eval_accuracy"] for row in judged],
            color=_GREY,
            marker="s",
            linestyle="--",
            label="held-out accuracy",
        )
        right.set_ylim(0, 1)
        right.set_ylabel("accuracy")
        lines = axes.get_lines() + right.get_lines()
        axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False, loc="lower left")
    elif steps:
        axes.legend(frameon=False)
    return _png(figure)


def tuning_trials(tuning: Tuning) -> bytes:
    """The score of each trial by each setting that was searched: the best ringed, pruned ones as crosses."""
    labels = {
        "learning_rate": "learning rate",
        "epochs": "epochs",
        "max_length": "tokens of a text that are read",
    }
    searched = [name for name in labels if name in tuning.chosen]
    figure = Figure(figsize=(1.4 + 2.6 * len(searched), 3.2), layout="constrained")
    every = figure.subplots(1, len(searched), sharey=True, squeeze=False)[0]
    shown = [trial for trial in tuning.trials if tuning.score in trial.metrics]
    for axes, name in zip(every, searched, strict=True):
        for state, marker, colour in (("complete", "o", _BLUE), ("pruned", "x", _GREY)):
            of_state = [trial for trial in shown if trial.state == state]
            axes.scatter(
                [trial.params[name] for trial in of_state],
                [trial.metrics[tuning.score] for trial in of_state],
                marker=marker,
                color=colour,
                label=state,
            )
        if tuning.best is not None:
            place = (tuning.best.params[name], tuning.best.metrics[tuning.score])
            axes.scatter(*place, s=130, facecolors="none", edgecolors=_ORANGE, linewidths=1.8, label="best")
        values = sorted({trial.params[name] for trial in shown})
        if name == "learning_rate":
            axes.set_xscale("log")
        elif len(values) <= 8:
            axes.set_xticks(values)
        axes.set_xlabel(labels[name])
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    every[0].set_ylabel(f"{tuning.score} on the judging rows")
    if any(trial.state == "pruned" for trial in shown):
        every[-1].legend(frameon=False, loc="best")
    return _png(figure)


def pretraining_curve(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Losses of encoder (left axis) and generator (right axis) by step."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    left = figure.add_subplot()
    right = left.twinx()
    lines = []
    for axes, name, colour, label in (
        (left, "discriminator_loss", _BLUE, "encoder: replaced or not"),
        (right, "generator_loss", _ORANGE, "generator: the masked token"),
    ):
        points = [(row["step"], row[name]) for row in history if name in row]
        if points:
            lines += axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, label=label)
        axes.set_ylabel(f"{name.replace('_', ' ')} (nats)")
        axes.set_ylim(bottom=0)
        axes.spines["top"].set_visible(False)
    left.set_xlabel("optimiser step")
    left.grid(alpha=0.25)
    if lines:
        left.legend(lines, [str(line.get_label()) for line in lines], frameon=False, loc="lower left")
    return _png(figure)


def confusion_matrix(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Counts by true label (rows) and predicted label (columns), shaded by the share of the row."""
    size = min(3.2 + 0.45 * len(classes), 14)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.add_subplot()
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [name if len(name) <= 18 else name[:17] + "…" for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=45 if len(names) > 3 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(names) <= 30:
        for i, row in enumerate(matrix):
            for j, count in enumerate(row):
                colour = "white" if shares[i][j] > 0.6 else "black"
                axes.text(j, i, f"{count:,}", ha="center", va="center", color=colour, fontsize=9)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    with written(figure):
        FigureCanvasAgg(figure).print_png(data)
    return data.getvalue()
