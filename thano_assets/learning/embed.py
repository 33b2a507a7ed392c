"""Texts to vectors: one forward pass of an encoder, pooled over the tokens and scaled to length 1.

Reads what Sentence Transformers writes beside a model: the way of pooling, the limit of tokens, the prompt
before a text, whether text is put into lower case. A folder without that, such as a classifier's, is pooled
by the mean of its tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from ..errors import UnsupportedStatement
from . import device as places
from .answering import WINDOW, Answering, no_model
from .encode import Encoded, Encoder
from .inference_encoder import InferenceEncoder, Layout, NotServed
from .tokens import load_tokenizer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["WINDOW", "Embedder", "pooling_of"]

_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


class Embedder(Answering):
    """An encoder ready to embed; its answers are vectors of length 1.

    Attributes:
        size: numbers of a vector.
    """

    _doing = "Embedding"

    def __init__(self, model: Any, encoder: Encoder, *, lower: bool = False, prompt: str = "") -> None:
        self.size = int(model.config.hidden_size)
        super().__init__(model, encoder, self.size)
        self._lower = lower
        self._prompt = prompt

    @classmethod
    def load(cls, model_dir: Path, *, precision: str | None = None) -> Self:
        """Load a Hugging Face folder: an encoder's, a classifier's or one of Sentence Transformers.

        Args:
            model_dir: holds configuration, safetensors weights and tokenizer.
            precision: ``'fp32'`` or ``'bf16'``; by default what the hardware is good at.

        Raises:
            UnknownModel: the folder holds no complete encoder.
            UnsupportedStatement: it goes from tokens to a vector in a way that is not served.
        """
        model_dir = Path(model_dir)
        place = places.device()
        chosen = precision or places.precision(place)
        dtype = torch.bfloat16 if chosen == "bf16" else torch.float32
        pooling = pooling_of(model_dir)
        try:
            try:
                layout = Layout.read(model_dir, classifier=False)
                model: Any = InferenceEncoder(layout, place, dtype, pooling)
                tokenizer = load_tokenizer(model_dir)
            except NotServed:
                from . import transformers_models

                model = transformers_models.load_encoder(model_dir, place, dtype, pooling)
                tokenizer = transformers_models.load_tokenizer(model_dir)
        except (OSError, ValueError) as error:
            raise no_model(model_dir, "encoder") from error
        encoder = Encoder.of_model(tokenizer, model.config)
        settings = _read(model_dir / "sentence_bert_config.json")
        longest = settings.get("max_seq_length")
        if isinstance(longest, int) and longest < encoder.max_length:
            encoder = Encoder(tokenizer, longest)
        return cls(model, encoder, lower=bool(settings.get("do_lower_case")), prompt=prompt_of(model_dir))

    def embed(self, texts: Sequence[str | None]) -> np.ndarray:
        """Vectors of length 1, float32 of shape (N, size); a missing or blank text has a row of NaN."""
        [(found, _)] = self.answer_batches([texts])
        return found

    def embed_arrow(self, texts: pa.Array | pa.ChunkedArray) -> pa.FixedSizeListArray:
        """As :meth:`embed`, from an Arrow array of text to one of vectors; NULL or blank texts give NULL."""
        import pyarrow as pa

        vectors = self.embed(texts.to_pylist())
        missing = pa.array(np.isnan(vectors[:, 0])) if len(vectors) else None
        return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.size, mask=missing)

    def _readable(self, texts: list[str]) -> list[str]:
        if self._prompt:
            texts = [self._prompt + text for text in texts]
        return [text.lower() for text in texts] if self._lower else texts

    def _answers(self, outputs: np.ndarray, encoded: Encoded, batch_size: int | None) -> np.ndarray:
        lengths = np.linalg.norm(outputs, axis=1, keepdims=True)
        return outputs / np.maximum(lengths, 1e-12)


def pooling_of(model_dir: Path) -> str:
    """How a folder's model goes from tokens to one vector: ``'mean'``, ``'cls'`` or ``'max'``.

    Raises:
        UnsupportedStatement: in another way, or through further layers.
    """
    strange = [kind for kind, _ in _modules(model_dir) if kind not in _KNOWN_MODULES]
    settings = _pooling_settings(model_dir)
    named = settings.get("pooling_mode")
    modes = (
        [named] if named else [key for key in settings if key.startswith("pooling_mode_") and settings[key]]
    )
    known = [_POOLINGS.get(mode, mode) for mode in modes]
    if strange or len(known) > 1 or any(mode not in _POOLINGS.values() for mode in known):
        what = ", ".join(strange) or " and ".join(known)
        raise UnsupportedStatement(
            f"The model makes its vectors by {what}, which this version does not compute.",
            hint="Models that take the mean, the maximum or the first of the tokens' vectors can be used.",
        )
    return known[0] if known else "mean"


def _modules(model_dir: Path) -> list[tuple[str, str]]:
    """Kind and folder of the steps from a text to its vector."""
    modules = json.loads(_text(model_dir / "modules.json") or "[]")
    return [
        (str(module.get("type", "")).rpartition(".")[2], str(module.get("path", ""))) for module in modules
    ]


def _pooling_settings(model_dir: Path) -> dict[str, Any]:
    folder = next((path for kind, path in _modules(model_dir) if kind == "Pooling"), None)
    return {} if folder is None else _read(model_dir / folder / "config.json")


def prompt_of(model_dir: Path) -> str:
    """What is put before every text: the folder's default prompt, as Sentence Transformers keeps it.

    Raises:
        UnsupportedStatement: the prompt's own tokens shall not count in the mean.
    """
    settings = _read(model_dir / "config_sentence_transformers.json")
    prompt = (settings.get("prompts") or {}).get(settings.get("default_prompt_name")) or ""
    if prompt and _pooling_settings(model_dir).get("include_prompt") is False:
        raise UnsupportedStatement(
            f"The model puts '{prompt.strip()}' before a text and leaves it out of the mean, "
            "which this version does not compute.",
            hint="Models that count their prompt, or have none, can be used.",
        )
    return str(prompt)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(_text(path) or "{}"))
