"""Texts to token ids, cut in one way wherever a model reads a text.

A text longer than ``max_length`` tokens keeps its first and its last tokens. Reviews, letters and reports
say what they think at their ends; keeping head and tail beat keeping either alone in Sun et al., "How to
Fine-Tune BERT for Text Classification?" (2019), section 5.3.1. The share of the head travels in the
model's own ``config.json``, so training, evaluation and prediction cut alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# A token is seldom longer than this many characters; a text is cut to a multiple of it before it is
# tokenized, so that a text of megabytes costs no more than one of a few pages.
_CHARACTERS_PER_TOKEN = 16
_NO_LIMIT = 100_000  # tokenizers without a limit of their own report numbers like 1e30
_STEP = 32  # widths of batches are multiples of this many tokens
_CONFIG_KEY = "thano_text"


@dataclass(frozen=True)
class Encoded:
    """Token ids of texts.

    Attributes:
        ids: one int32 array per text, special tokens included.
        cut: for each text whether it was longer than the limit.
        limit: the most tokens that a text has.
    """

    ids: list[np.ndarray]
    cut: list[bool]
    limit: int

    @property
    def truncated(self) -> int:
        """How many texts were longer than the limit."""
        return sum(self.cut)

    def take(self, rows: np.ndarray) -> Encoded:
        """The texts with these row numbers."""
        return Encoded([self.ids[row] for row in rows], [self.cut[row] for row in rows], self.limit)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, shape (N,)."""
        return np.fromiter((len(ids) for ids in self.ids), dtype=np.int64, count=len(self.ids))


class Encoder:
    """A tokenizer with a length limit.

    Args:
        tokenizer: a Transformers tokenizer, fast or not.
        max_length: tokens kept of a text, special tokens included.
        head_share: share of the kept tokens that comes from the text's beginning; 1 keeps the beginning
            only, which is what Transformers' own ``truncation=True`` does.
    """

    def __init__(self, tokenizer: Any, max_length: int, head_share: float = 1.0) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.head_share = head_share
        # The special tokens around a text, found by asking: [CLS] x [SEP] for BERT and ELECTRA.
        mask = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        inside = [place for place, special in enumerate(mask) if not special] or [len(mask)]
        self._before, self._after = inside[0], len(mask) - 1 - inside[-1]
        room = max(max_length - self._before - self._after, 1)
        self.head = max(1, round(room * head_share))
        self.tail = room - self.head
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    @classmethod
    def of_model(cls, tokenizer: Any, config: Any) -> Encoder:
        """The encoder that a saved model was trained with; stock truncation for a model from elsewhere."""
        kept = getattr(config, _CONFIG_KEY, None) or {}
        longest = limit(tokenizer, config)
        return cls(tokenizer, min(kept.get("max_length", longest), longest), kept.get("head_share", 1.0))

    def keep_in(self, config: Any) -> None:
        """Write the way of cutting into a model's configuration."""
        setattr(config, _CONFIG_KEY, {"max_length": self.max_length, "head_share": self.head_share})

    def describe(self) -> str:
        """What is read of a long text, as words for a warning."""
        if self.tail == 0:
            return f"their first {self.max_length} tokens are read"
        return f"{self.head} tokens from their start and {self.tail} from their end are read"

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Token ids of ``texts``, each at most ``max_length`` long."""
        if not texts:
            return Encoded([], [], self.max_length)
        found = self.tokenizer(
            [self.shortened(text) for text in texts],
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        rows, cut = [], []
        for ids in found:
            cut.append(len(ids) > self.max_length)
            if cut[-1]:
                ids = [ids[place] for place in self.kept(len(ids))]
            rows.append(np.asarray(ids, dtype=np.int32))
        return Encoded(rows, cut, self.max_length)

    def kept(self, length: int) -> list[int]:
        """The places of the tokens that are kept of a text with ``length`` of them, special ones included."""
        if length <= self.max_length:
            return list(range(length))
        end = length - self._after
        return [*range(self._before + self.head), *range(end - self.tail, length)]

    def special(self, length: int) -> np.ndarray:
        """Which of the ``length`` tokens that are read of a text are special ones, bool (length,)."""
        found = np.zeros(length, dtype=bool)
        found[: self._before] = True
        found[length - self._after :] = True
        return found

    def shortened(self, text: str) -> str:
        """What is tokenized of a text: all of it, or both ends of a very long one."""
        room = _CHARACTERS_PER_TOKEN * self.max_length
        if len(text) <= 2 * room:
            return text
        # Long enough on both sides for the cut to fall inside what is dropped, except in a text without
        # any word boundary, where the tokens at the seam may differ from those of the whole text.
        return f"{text[:room]} {text[-room:]}"


def numbers_from_padding(config: Any) -> bool:
    """Whether the model numbers positions from its padding id + 1 and gives padding tokens none."""
    return getattr(config, "model_type", "") in {
        "roberta",
        "xlm-roberta",
        "camembert",
        "roberta-prelayernorm",
    }


def limit(tokenizer: Any, config: Any) -> int:
    """The most tokens that a model with this tokenizer and configuration can read."""
    own = tokenizer.model_max_length
    positions = getattr(config, "max_position_embeddings", None)
    if positions and numbers_from_padding(config):
        positions -= 2
    candidates = [value for value in (own, positions) if value and 0 < value < _NO_LIMIT]
    return min(candidates, default=512)


def padded(rows: Sequence[np.ndarray], pad_id: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and attention mask of a batch, both int64 of shape (B, T).

    T is the longest of the rows, rounded up to a multiple of 32 within ``limit``: kernels are kept for every
    shape met, and with hundreds of shapes they took gigabytes in a training of half an hour.
    """
    longest = max(len(row) for row in rows)
    width = max(longest, min(_rounded(longest), limit))
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return ids, mask


def _rounded(length: int) -> int:
    return max(1, -(-length // _STEP)) * _STEP


def shuffled_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row numbers of one epoch's batches: in random order, yet rows of a batch of like length.

    Rows are shuffled, cut into windows of 50 batches, sorted by length inside a window, cut into batches,
    and the batches shuffled again. The same arguments give the same batches.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    window = 50 * batch_size
    batches = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(-lengths[part], kind="stable")]
        batches += [part[place : place + batch_size] for place in range(0, len(part), batch_size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def budgeted_batches(lengths: np.ndarray, budget: int, most_rows: int | None = None) -> Iterator[np.ndarray]:
    """Row numbers of batches for inference: longest first, at most ``budget`` padded tokens a batch.

    A single row longer than the budget makes a batch of its own; ``most_rows`` bounds a batch's rows too.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // _rounded(int(lengths[order[start]])))
        size = size if most_rows is None else min(size, most_rows)
        yield order[start : start + size]
        start += size


def packed_batches(lengths: np.ndarray, budget: int, most_rows: int | None = None) -> Iterator[np.ndarray]:
    """As :func:`budgeted_batches`, for a model that computes nothing for padding."""
    order = np.argsort(-lengths, kind="stable")
    tokens = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        before = int(tokens[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(tokens, before + budget, side="right")))
        end = end if most_rows is None else min(end, start + most_rows)
        yield order[start:end]
        start = end
