"""Temperature scaling: probabilities made to say how often they are right.

One number T divides the logits of a trained classifier; it is fitted on held-out rows by their log loss (Guo,
Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks"). Labels stay what they were. T is
worked into the last layer of the model, so that everybody who loads it gets the same probabilities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

#: Held-out rows from which a temperature is fitted: with 50 it made the log loss of other rows worse in a
#: third of 200 draws, with 100 in a tenth.
FEWEST_ROWS = 100
_SPREAD = 0.5  # standard deviation of log T that is expected before any row is seen
_BINS = 15
_SMALLEST = 1e-12


def fit_temperature(proba: np.ndarray, truth: np.ndarray) -> float:
    """The temperature with the least log loss, drawn towards 1 by a normal prior on its logarithm.

    Args:
        proba: probabilities of held-out rows, shape (N, C).
        truth: their true class indices, shape (N,).

    Returns:
        T; 1.0 for fewer rows than :data:`FEWEST_ROWS`.
    """
    if len(truth) < FEWEST_ROWS:
        return 1.0
    from scipy.optimize import minimize_scalar

    logits = np.log(np.clip(proba.astype(np.float64), _SMALLEST, 1.0))
    rows = np.arange(len(truth))

    def cost(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        top = scaled.max(axis=1, keepdims=True)
        sums = top[:, 0] + np.log(np.exp(scaled - top).sum(axis=1))
        return float((sums - scaled[rows, truth]).sum() + 0.5 * (log_t / _SPREAD) ** 2)

    found = minimize_scalar(cost, bounds=(-2.0, 2.0), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def at_temperature(proba: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities, shape (N, C), as their logits divided by ``temperature`` give them."""
    if temperature == 1.0:
        return proba
    logits = np.log(np.clip(proba.astype(np.float64), _SMALLEST, 1.0)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(proba.dtype)


def scale_head(model: Any, temperature: float) -> bool:
    """Divide the logits of a classifier of Transformers' by ``temperature``, in its last layer's weights.

    Returns:
        Whether it has such a layer: a linear one outside of its encoder, with an output for each label.
    """
    head = _last_layer(model)
    if head is None:
        return False
    import torch

    with torch.no_grad():
        for parameter in head.parameters():
            parameter.div_(temperature)
    return True


def _last_layer(model: Any) -> torch.nn.Linear | None:
    import torch

    inside = f"{model.base_model_prefix}."
    found = None
    for name, module in model.named_modules():
        last = isinstance(module, torch.nn.Linear) and module.out_features == model.config.num_labels
        if last and not name.startswith(inside):
            found = module
    return found


def calibration_error(true: np.ndarray, proba: np.ndarray) -> float:
    """Expected calibration error of the predicted label: how far confidence and accuracy lie apart.

    The mean over 15 equally wide bins of confidence, weighted by their rows (Guo et al. 2017, equation 3).
    Even a perfectly calibrated model has one above 0, about 0.02 on 600 rows.

    Args:
        true: class indices, shape (N,).
        proba: probabilities, shape (N, C).
    """
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == true
    place = np.clip((confidence * _BINS).astype(np.int64), 0, _BINS - 1)
    counts = np.bincount(place, minlength=_BINS)
    gaps = np.bincount(place, confidence, _BINS) - np.bincount(place, right, _BINS)
    return float(np.abs(gaps).sum() / counts.sum())
