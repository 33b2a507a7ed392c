"""A classifier of a published model's shape with random weights: for speed, which weights have no say in.

    python benchmarks/random_model.py electra-base random-electra-base

Sizes are those of google/electra-{small,base,large}-discriminator (Clark et al. 2020, table 6), the tokenizer
is that of the packaged MiniLM, or of ``--tokenizer``. The folder is one for ``train.py --base`` and
``predict.py --model``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

SHAPES = {  # embedding, hidden, layers, heads, inner
    "electra-small": (128, 256, 12, 4, 1024),
    "electra-base": (768, 768, 12, 12, 3072),
    "electra-large": (1024, 1024, 24, 16, 4096),
}


def tokenizer_of(folder: Path | None) -> Any:
    """The tokenizer of a folder, or of the packaged MiniLM."""
    from transformers import AutoTokenizer

    if folder is not None:
        return AutoTokenizer.from_pretrained(folder)
    from thano_assets.resources.packaged.minilm import MiniLM

    with tempfile.TemporaryDirectory(prefix="thano-") as name:
        MiniLM().write_tokenizer(Path(name), 512)
        return AutoTokenizer.from_pretrained(name)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    asked = parser.parse_args()
    import torch
    from transformers import ElectraConfig, ElectraForSequenceClassification

    tokenizer = tokenizer_of(asked.tokenizer)
    embedding, hidden, layers, heads, inner = SHAPES[asked.shape]
    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=len(tokenizer),
        embedding_size=embedding,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        num_labels=2,
    )
    tokenizer.model_max_length = config.max_position_embeddings
    model = ElectraForSequenceClassification(config)
    # All texts get one label, clearly: PREDICT computes what is near a tie again, in float32.
    torch.nn.init.constant_(model.classifier.out_proj.bias[:1], 2.0)
    model.save_pretrained(asked.folder)
    tokenizer.save_pretrained(asked.folder)


if __name__ == "__main__":
    main()
