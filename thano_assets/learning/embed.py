"""Texts to vectors: one forward pass of an encoder, pooled over the tokens and scaled to length 1.

Reads what Sentence Transformers writes beside a model: the way of pooling, the limit of tokens, whether text
is put into lower case. A folder without that, such as a classifier's, is pooled by the mean of its tokens.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from ..errors import UnknownModel, UnsupportedStatement
from ..progress import SILENT, Progress
from . import device as places
from .encode import Encoded, Encoder, padded
from .fused import fuse
from .quiet import quiet_transformers
from .warm import Warm

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = 4096  # texts held, sorted by length and embedded together; bounds the memory
# Widths of batches are multiples of these many tokens. Short texts gain from narrow steps, and there are few
# of such widths; kernels are kept for every width met, so long ones are fewer.
_NARROW, _WIDE, _NARROW_UP_TO = 8, 32, 64
_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


class Embedder:
    """An encoder ready to embed.

    Attributes:
        size: numbers of a vector.
        max_length: tokens read of a text; longer ones are cut.
        device, precision: where and how it computes; bfloat16 weights where the hardware has it.
        truncated: texts cut so far.
    """

    def __init__(self, model: Any, encoder: Encoder, pooling: str = "mean", *, lower: bool = False) -> None:
        self._model = model
        self._encoder = encoder
        self._pooling = pooling
        self._lower = lower
        self._lock = threading.Lock()
        self.size = int(model.config.hidden_size)
        self.max_length = encoder.max_length
        self.device = places.describe(model.device)
        self.precision = "bf16" if model.dtype == torch.bfloat16 else "fp32"
        self.truncated = 0

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
        place = places.device()
        chosen = precision or places.precision(place)
        pooling = pooling_of(model_dir)
        try:
            with quiet_transformers():
                model, told = AutoModel.from_pretrained(
                    model_dir,
                    use_safetensors=True,
                    trust_remote_code=False,
                    dtype=torch.bfloat16 if chosen == "bf16" else torch.float32,
                    output_loading_info=True,
                )
                tokenizer = AutoTokenizer.from_pretrained(model_dir)
            # The pooler above the first token is not read, so it may be missing; nothing else may.
            missing = [name for name in told["missing_keys"] if not name.startswith("pooler.")]
            if missing:
                raise ValueError(f"{len(missing)} tensors are missing")
        except (OSError, ValueError) as error:
            raise UnknownModel(
                f"{model_dir} holds no complete encoder.",
                hint="It needs config.json, model.safetensors and tokenizer files.",
            ) from error
        encoder = Encoder.of_model(tokenizer, model.config)
        settings = _read(model_dir / "sentence_bert_config.json")
        longest = settings.get("max_seq_length")
        if isinstance(longest, int) and longest < encoder.max_length:
            encoder = Encoder(tokenizer, longest)
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # it is not read
        model = fuse(model.to(place).eval())
        return cls(model, encoder, pooling, lower=bool(settings.get("do_lower_case")))

    @classmethod
    def cached(cls, model_dir: Path) -> Self:
        """As :meth:`load`, but a model used lately in this process is still warm."""
        found: Self = _warm.get(cls, model_dir, cls.load)
        return found

    def embed(self, texts: Sequence[str | None]) -> np.ndarray:
        """Vectors of length 1, float32 of shape (N, size); a missing or blank text has a row of NaN."""
        found = [vectors for vectors, _ in self.answer_batches([texts])]
        return found[0]

    def embed_arrow(self, texts: pa.Array | pa.ChunkedArray) -> pa.FixedSizeListArray:
        """As :meth:`embed`, from an Arrow array of text to one of vectors; NULL or blank texts give NULL."""
        import pyarrow as pa

        vectors = self.embed(texts.to_pylist())
        missing = pa.array(np.isnan(vectors[:, 0])) if len(vectors) else None
        return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.size, mask=missing)

    def answer_batches(
        self,
        batches: Iterable[Sequence[str | None]],
        progress: Progress = SILENT,
        total: int | None = None,
        batch_size: int | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Vectors of each batch of texts, float32 of shape (N, size), and which texts were cut, bool (N,).

        Memory is that of one batch. Batches of some thousand texts waste least: texts are sorted by length
        within a batch, and the same text is read once.

        Args:
            batches: lists of texts.
            progress: is told about the texts embedded.
            total: how many texts there are, where known.
            batch_size: most texts that the model reads at a time; by default tokens alone fill a batch.
        """
        with progress.task("Embedding", total=total, unit="texts") as task:
            for texts in batches:
                found = np.full((len(texts), self.size), np.nan, dtype=np.float32)
                cut = np.zeros(len(texts), dtype=bool)
                for start in range(0, len(texts), WINDOW):
                    window = texts[start : start + WINDOW]
                    part = slice(start, start + len(window))
                    found[part], cut[part] = self._window(window, batch_size)
                    task.advance(len(window))
                yield found, cut

    def _window(self, texts: Sequence[str | None], batch_size: int | None) -> tuple[np.ndarray, np.ndarray]:
        number_of: dict[str, int] = {}  # the same text is read once
        numbers = np.full(len(texts), -1)
        for place, text in enumerate(texts):
            if text is not None and text.strip():
                numbers[place] = number_of.setdefault(text, len(number_of))
        given = numbers >= 0
        found = np.full((len(texts), self.size), np.nan, dtype=np.float32)
        cut = np.zeros(len(texts), dtype=bool)
        if not number_of:
            return found, cut
        unique = [text.lower() for text in number_of] if self._lower else list(number_of)
        with self._lock:  # fast tokenizers keep settings of the call at hand
            encoded = self._encoder.encode(unique)
        vectors = np.empty((len(unique), self.size), dtype=np.float32)
        for rows in _batches(encoded.lengths, places.token_budget(self._model.device), batch_size):
            vectors[rows] = self._forward(encoded, rows)
        found[given] = vectors[numbers[given]]
        cut[given] = np.asarray(encoded.cut)[numbers[given]]
        self.truncated += int(cut.sum())
        return found, cut

    def _forward(self, encoded: Encoded, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows of one batch, float32 of shape (B, size)."""
        tokens = [encoded.ids[row] for row in rows]
        ids, mask = padded(tokens, self._encoder.pad_id, _width(max(map(len, tokens))))
        place = self._model.device
        with torch.inference_mode():
            there = torch.from_numpy(mask).to(place)
            hidden = self._model(input_ids=torch.from_numpy(ids).to(place), attention_mask=there)[0].float()
            if self._pooling == "cls":
                pooled = hidden[:, 0]
            elif self._pooling == "max":
                pooled = hidden.masked_fill(there[:, :, None] == 0, float("-inf")).amax(dim=1)
            else:
                weights = there[:, :, None].to(hidden.dtype)
                pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
            vectors: np.ndarray = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return vectors


def pooling_of(model_dir: Path) -> str:
    """How a folder's model goes from tokens to one vector: ``'mean'``, ``'cls'`` or ``'max'``.

    Raises:
        UnsupportedStatement: in another way, or through further layers.
    """
    modules = json.loads(_text(model_dir / "modules.json") or "[]")
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    strange = [kind for kind in kinds if kind not in _KNOWN_MODULES]
    settings = next(
        (
            _read(model_dir / str(module.get("path", "")) / "config.json")
            for module, kind in zip(modules, kinds, strict=True)
            if kind == "Pooling"
        ),
        {},
    )
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


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(_text(path) or "{}"))


def _width(longest: int) -> int:
    step = _NARROW if longest <= _NARROW_UP_TO else _WIDE
    return -(-longest // step) * step


def _batches(lengths: np.ndarray, budget: int, most_rows: int | None) -> Iterator[np.ndarray]:
    """Row numbers of batches: longest first, at most ``budget`` padded tokens and ``most_rows`` rows each."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // _width(int(lengths[order[start]])))
        size = size if most_rows is None else min(size, most_rows)
        yield order[start : start + size]
        start += size


_warm: Warm[Any] = Warm()
