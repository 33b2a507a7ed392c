"""Models through Transformers' own classes: what :mod:`.inference_encoder` does not compute; gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutput

from .fused_linear import fuse
from .inference_encoder import pooled
from .transformers_logging import quiet_transformers


def load_classifier(model_dir: Path, place: torch.device, dtype: torch.dtype) -> Any:
    """A sequence classifier in evaluation mode.

    Raises:
        OSError, ValueError: the folder holds none.
    """
    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(
            model_dir, use_safetensors=True, trust_remote_code=False, dtype=dtype
        )
    return model.to(place).eval()


def load_encoder(model_dir: Path, place: torch.device, dtype: torch.dtype, pooling: str) -> Any:
    """An encoder that gives pooled vectors (B, E), in evaluation mode.

    Raises:
        OSError, ValueError: the folder holds no complete encoder.
    """
    with quiet_transformers():
        model, told = AutoModel.from_pretrained(
            model_dir,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=dtype,
            output_loading_info=True,
        )
    # The pooler above the first token is not read, so it may be missing; nothing else may.
    missing = [name for name in told["missing_keys"] if not name.startswith("pooler.")]
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing")
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # it is not read
    return _Pooled(fuse(model.to(place).eval()), pooling)


def load_tokenizer(model_dir: Path) -> Any:
    """A folder's tokenizer.

    Raises:
        OSError, ValueError: the folder holds none.
    """
    with quiet_transformers():
        return AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)


class _Pooled(torch.nn.Module):
    """An encoder of Transformers with its tokens' vectors pooled."""

    def __init__(self, model: Any, pooling: str) -> None:
        super().__init__()
        self.model, self.pooling = model, pooling
        self.config, self.dtype, self.device = model.config, model.dtype, model.device

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        found: BaseModelOutput = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return pooled(found[0], attention_mask, self.pooling)
