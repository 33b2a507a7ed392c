"""The layer on top of packaged encoders, by which classifiers of the first token read the mean of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_POOLING_GAIN = 4.0  # how much the mean of the tokens outweighs the first token's own vector


def pooling_layer(weights: Mapping[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """An ordinary encoder layer that hands the mean over all tokens to each of them.

    Packaged models were trained to be read by the mean of its tokens' vectors, while the classifiers of
    ELECTRA and BERT read the first token's. In this layer the queries are zero, so that attention is uniform
    over the tokens; values pass unchanged and come out :data:`_POOLING_GAIN` times as large; the feed-forward
    half adds nothing. Its output is therefore the normalised sum of a token's vector and the mean, until
    training teaches it better: keys and the first feed-forward matrix are those of the layer below, so that
    gradients reach every part.

    Args:
        weights: tensors of the packaged encoder.
        layers: how many layers it has; the new one follows them.
    """
    import numpy as np

    below, new = f"encoder.layer.{layers - 1}.", f"encoder.layer.{layers}."
    found = {
        name.replace(below, new): np.zeros_like(value)
        for name, value in weights.items()
        if name.startswith(below)
    }
    for name in ("attention.self.key.weight", "intermediate.dense.weight", "intermediate.dense.bias"):
        found[new + name] = weights[below + name].copy()
    for name in ("attention.output.LayerNorm.weight", "output.LayerNorm.weight"):
        found[new + name] = np.ones_like(weights[below + name])
    unit = np.eye(len(found[new + "attention.self.value.weight"]), dtype=np.float32)
    found[new + "attention.self.value.weight"] = unit
    found[new + "attention.output.dense.weight"] = _POOLING_GAIN * unit
    return found
