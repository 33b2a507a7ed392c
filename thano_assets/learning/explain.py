"""Which words moved a prediction: integrated gradients over the embeddings of a text's tokens.

The output that is explained is the log-odds of the label against all others. Its gradient is summed along the
straight way from an empty text (every token a padding token, special ones as they are) to the text, so the
weights of all tokens sum up to the difference of the outputs at both ends (Sundararajan et al., "Axiomatic
Attribution for Deep Networks", 2017). How well they do is checked text by text, and where they do not, the
sum is made finer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from captum.attr import LayerIntegratedGradients

from ..errors import UnsupportedStatement
from ..progress import SILENT, Progress
from . import device as places
from .encode import Encoded, numbers_from_padding
from .infer import batch_tensors
from .predict import Predictor

#: Points on the way from the empty text, for a first sum and for those that were not fine enough.
STEPS = (32, 128, 512)
#: How far the sum of the weights may be from the difference of the outputs: a share of it, or log-odds.
TOLERANCE, LEAST_TOLERANCE = 0.05, 0.05
# Points that go through the model together, at most; the texts of a batch share the room with them.
_TOGETHER = 8
_DECIMALS = 3  # further ones depend on the company that a text has in its batch
_JOINTS = frozenset("'’-")


@dataclass(frozen=True)
class Explanation:
    """What moved the prediction of one text.

    Attributes:
        words: words and their weights in log-odds, those that moved most first; above zero for the label.
        difference: the output for the text less that for an empty one: the sum of all words' weights.
        gap: how far the sum of the weights is from that.
    """

    words: list[tuple[str, float]]
    difference: float
    gap: float

    @property
    def complete(self) -> bool:
        """Whether the weights account for the output."""
        return self.gap <= max(TOLERANCE * abs(self.difference), LEAST_TOLERANCE)


class Explainer(Predictor):
    """A classifier that tells what moved it; weights in float32, products as precise as in training."""

    _products = _now = "fp32"

    @classmethod
    def load(cls, model_dir: Path, *, precision: str | None = None) -> Self:
        """As :meth:`Predictor.load`, in float32 unless told otherwise."""
        found = super().load(model_dir, precision=precision or "fp32")
        if found._model.device.type == "cpu":
            # As in training: the fused kernel's backward pass is slow there.
            found._model.set_attn_implementation("eager")
        found._products = places.precision(found._model.device)
        return found

    def explain_batches(
        self,
        batches: Iterable[tuple[Sequence[str], Sequence[int]]],
        top_k: int,
        progress: Progress = SILENT,
        total: int | None = None,
    ) -> Iterator[list[Explanation]]:
        """Explanations of each batch of texts, in turn; memory is that of one batch.

        Args:
            batches: texts, none missing or blank, and the place of the label of each among ``classes``.
            top_k: most words of a text.
            progress: is told about the texts explained.
            total: how many texts there are, where known.

        Raises:
            UnsupportedStatement: the model is no plain encoder or decoder.
        """
        config = self._model.config
        if getattr(config, "is_encoder_decoder", False):
            raise UnsupportedStatement(
                f"A model of the kind {config.model_type}, which reads and writes, cannot be explained.",
                hint="PREDICT answers with it; encoders such as ELECTRA and BERT can be explained.",
            )
        with progress.task("Explaining", total=total) as task:
            for texts, labels in batches:
                with self._lock:
                    found = self._explain(texts, np.asarray(labels, dtype=np.int64), top_k, task)
                yield found

    def _explain(self, texts: Sequence[str], labels: np.ndarray, top_k: int, task: Any) -> list[Explanation]:
        encoded = self._encoder.encode(texts)
        pieces = [self._pieces(text) for text in texts]
        found: list[Explanation | None] = [None] * len(texts)
        open_rows = np.arange(len(texts))
        for steps in STEPS:
            # Where a first sum does not add up, bfloat16's rounding may be the reason as well.
            self._now = self._products if steps == STEPS[0] else "fp32"
            missed = []
            for rows in self._batches(encoded, open_rows):
                weights, differences, gaps = self._attributed(encoded, rows, labels[rows], steps)
                for place, row in enumerate(rows):
                    words = _by_word(pieces[row], weights[place])[:top_k]
                    one = Explanation(words, float(differences[place]), float(gaps[place]))
                    found[row] = one
                    if one.complete or steps == STEPS[-1]:
                        task.advance(1)
                    else:
                        missed.append(row)
            open_rows = np.asarray(missed, dtype=np.int64)
            if not len(open_rows):
                break
        return [one for one in found if one is not None]

    def _batches(self, encoded: Encoded, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Rows of like length, so few that several points of each fit into one pass."""
        room = places.token_budget(self._model.device) // _TOGETHER
        lengths = encoded.lengths
        order = rows[np.argsort(-lengths[rows], kind="stable")]
        start = 0
        while start < len(order):
            most = max(1, room // max(1, int(lengths[order[start]])))
            yield order[start : start + most]
            start += most

    def _attributed(
        self, encoded: Encoded, rows: np.ndarray, labels: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights of the tokens (B, T), differences of the outputs (B,) and gaps (B,), all float64."""
        place = self._model.device
        batch = batch_tensors(encoded, rows, self._encoder.pad_id, place)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        special = np.zeros(tuple(ids.shape), dtype=bool)
        for number, row in enumerate(rows):
            special[number, : len(encoded.ids[row])] = self._encoder.special(len(encoded.ids[row]))
        empty = torch.where(torch.from_numpy(special).to(place), ids, self._nothing())
        targets = torch.from_numpy(labels).to(place)
        method = LayerIntegratedGradients(self._log_odds, self._model.get_input_embeddings())
        weights = method.attribute(
            ids,
            baselines=empty,
            additional_forward_args=(mask, targets),
            n_steps=steps,
            internal_batch_size=max(len(rows), places.token_budget(place) // ids.shape[1]),
        )
        with torch.inference_mode():
            reached = self._log_odds(ids, mask, targets) - self._log_odds(empty, mask, targets)
        by_token = weights.detach().sum(dim=-1).float().cpu().double().numpy()
        difference = reached.float().cpu().double().numpy()
        return by_token, difference, np.abs(by_token.sum(axis=1) - difference)

    def _nothing(self) -> int:
        """The token that stands for a missing one: padding, where it has a position like any other."""
        tokenizer, pad = self._encoder.tokenizer, self._encoder.pad_id
        if not numbers_from_padding(self._model.config):
            return pad
        others = (tokenizer.mask_token_id, tokenizer.unk_token_id)
        return next((token for token in others if token is not None), pad)

    def _log_odds(self, ids: torch.Tensor, mask: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-odds (B,) of each row's target class against all others together."""
        with places.autocast(self._model.device, self._now):
            logits = self._model(input_ids=ids, attention_mask=mask).logits.float()
        chosen = torch.nn.functional.one_hot(targets, logits.shape[-1]).bool()
        others = logits.masked_fill(chosen, float("-inf")).logsumexp(dim=-1)
        return logits.gather(1, targets[:, None])[:, 0] - others

    def _pieces(self, text: str) -> list[tuple[int, str]]:
        """For each token that is read: the number of its word (-1 for special tokens), and that word."""
        tokenizer, encoder = self._encoder.tokenizer, self._encoder
        text = encoder.shortened(text)
        if not tokenizer.is_fast:
            names = tokenizer.convert_ids_to_tokens(tokenizer(text, verbose=False)["input_ids"])
            special = set(tokenizer.all_special_tokens)
            return [
                (-1 if names[place] in special else number, names[place])
                for number, place in enumerate(encoder.kept(len(names)))
            ]
        found = tokenizer(text, truncation=False, padding=False, return_offsets_mapping=True, verbose=False)
        numbers, offsets = found.word_ids(), found["offset_mapping"]
        kept = [(numbers[place], offsets[place]) for place in encoder.kept(len(offsets))]
        return _joined(text, kept)


def _joined(text: str, tokens: list[tuple[int | None, tuple[int, int]]]) -> list[tuple[int, str]]:
    """Words of ``tokens`` (number of the word and place of each), those like *don't* and *so-so* made one.

    A word that was cut in the middle is what is left of it.
    """
    spans: dict[int, list[int]] = {}
    for number, (start, end) in tokens:
        if number is not None:
            span = spans.setdefault(number, [start, end])
            span[1] = max(span[1], end)
    numbers = sorted(spans, key=lambda number: spans[number])
    owner = {number: number for number in numbers}
    for before, joint, after in zip(numbers, numbers[1:], numbers[2:], strict=False):
        first, second, third = spans[owner[before]], spans[joint], spans[after]
        if (
            text[second[0] : second[1]] in _JOINTS
            and first[1] == second[0]
            and second[1] == third[0]
            and text[first[1] - 1].isalnum()
            and text[third[0]].isalnum()
        ):
            owner[joint] = owner[after] = owner[before]
            first[1] = third[1]
    words = {number: text[slice(*spans[owner[number]])].strip() for number in numbers}
    return [(-1, "") if number is None else (owner[number], words[number]) for number, _ in tokens]


def _by_word(pieces: list[tuple[int, str]], weights: np.ndarray) -> list[tuple[str, float]]:
    """Words and the sums of their tokens' weights, those that moved most first.

    A word that stands in the text several times, in whatever case, is told once.
    """
    sums: dict[str, float] = {}
    shown: dict[str, str] = {}
    for (number, word), weight in zip(pieces, weights, strict=False):
        if number < 0 or not word:
            continue
        key = word.casefold()
        shown.setdefault(key, word)
        sums[key] = sums.get(key, 0.0) + float(weight)
    rounded = [(shown[key], round(total, _DECIMALS)) for key, total in sums.items()]
    moved = [(word, weight) for word, weight in rounded if weight]
    return sorted(moved, key=lambda one: -abs(one[1]))
