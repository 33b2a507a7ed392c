"""Pictures of a training, as PNG bytes; drawn without a display and without pyplot's global state."""

from __future__ import annotations

import io
import math
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
    """Parallel coordinates: a line per trial from its settings to its score; the best one in orange."""
    labels = {"learning_rate": "learning rate", "epochs": "epochs", "max_length": "tokens read"}
    searched = [name for name in labels if name in tuning.chosen]
    shown = [trial for trial in tuning.trials if tuning.score in trial.metrics]
    rows = [[*(trial.params[name] for name in searched), trial.metrics[tuning.score]] for trial in shown]
    figure = Figure(figsize=(1.6 + 2.0 * len(searched), 3.6), layout="constrained")
    axes = figure.subplots()
    heights = []
    for place, values in enumerate(zip(*rows, strict=True)):
        scale = math.log10 if place < len(searched) and searched[place] == "learning_rate" else float
        low, high = scale(min(values)), scale(max(values))
        height = {one: (scale(one) - low) / (high - low) if high > low else 0.5 for one in values}
        heights.append([height[one] for one in values])
        axes.axvline(place, color="black", linewidth=0.8)
        ticks = sorted(height)
        if len(ticks) > 6:  # those that lie nearest to an even division
            ticks = [min(height, key=lambda one: abs(height[one] - part / 5)) for part in range(6)]
        for tick in ticks:
            axes.annotate(
                f"{tick:.3g}",
                (place, height[tick]),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
            )
    for trial, line in zip(shown, zip(*heights, strict=True), strict=True):
        best, pruned = trial is tuning.best, trial.state == "pruned"
        axes.plot(
            line,
            color=_ORANGE if best else _GREY if pruned else _BLUE,
            linewidth=2.2 if best else 1.0,
            linestyle="--" if pruned else "-",
            label="best" if best else trial.state,
            zorder=3 if best else 2,
        )
    axes.set_xlim(-0.1, len(searched) + 0.35)
    axes.set_xticks(range(len(searched) + 1), [*(labels[name] for name in searched), tuning.score])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    drawn = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # each label once
    figure.legend(drawn.values(), drawn.keys(), loc="outside upper center", ncols=3, frameon=False)
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
