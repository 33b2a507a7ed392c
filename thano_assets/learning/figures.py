"""Pictures of a training, as PNG bytes; drawn without a display and without pyplot's global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
    FigureCanvasAgg(figure).print_png(data)
    return data.getvalue()
