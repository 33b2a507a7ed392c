"""Which words moved a prediction: integrated gradients over how much each token is attended to.

The output that is explained is the log-odds of the label against all others. Each token but the special ones
has a share, from 0 (no token attends to it, as if it were not there) to 1 (the text as it is), which
multiplies the attention that it gets in every layer. The gradient by the shares is summed along the straight
way from 0 to 1, so the weights of all tokens sum up to the difference of the outputs at both ends
(Sundararajan et al., "Axiomatic Attribution for Deep Networks", 2017). Taking words away is what a share of 0
does, and weights are judged by that: docs/decisions/captum.md has the figures. Models whose attention takes
no such shares are explained over the vectors of their tokens, from padding tokens to the text.

The output changes most on a short stretch of the way. So it is cut into stretches, each is checked by that
property by itself, and where the weights do not sum up the stretch is halved.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from captum.attr import IntegratedGradients

from ..errors import UnsupportedStatement
from ..progress import SILENT, Progress
from . import device as places
from .answering import refuse_nan
from .device_memory import token_budget
from .encode import Encoded, numbers_from_padding
from .infer import batch_tensors
from .predict import Predictor

T = TypeVar("T", bound=tuple[Any, ...])

#: Stretches of the way that are tried first, and points on each (Gauss-Legendre).
STRETCHES, POINTS = 5, 3
#: How far the sum of the weights may be from the difference of the outputs: a share of it, or log-odds.
TOLERANCE, LEAST_TOLERANCE = 0.05, 0.05


@dataclass(frozen=True)
class _Pass:
    """How a text is gone through.

    Attributes:
        tolerance, least: how far the weights of one stretch may be from its difference: a share of the
            difference over the whole way, or log-odds.
        depth: how often a stretch is halved at most.
    """

    tolerance: float
    least: float
    depth: int


# At first in the precision of training, whose rounding alone may be some hundredths; what does not add up
# then once more in float32, so narrowly that the whole does.
_QUICK = _Pass(tolerance=0.02, least=0.05, depth=4)
_PRECISE = _Pass(TOLERANCE / STRETCHES / 2, LEAST_TOLERANCE / STRETCHES / 2, depth=8)
_NO_SHARE = 1e-9  # a share of 0, whose logarithm is a number
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


@dataclass(frozen=True)
class _Ways:
    """Straight ways between shares, or vectors, of tokens, with what the model is told beside them.

    Attributes:
        start, end: shape (B, T) or (B, T, size).
        ids, mask: the tokens and the attention mask, shape (B, T).
        targets: the classes that are explained, shape (B,).
    """

    start: torch.Tensor
    end: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor

    def at(self, points: Sequence[float]) -> torch.Tensor:
        """Where each way is at its point, 0 at its start and 1 at its end; of the shape of both."""
        part = torch.tensor(points, dtype=self.start.dtype, device=self.start.device)
        return torch.lerp(self.start, self.end, part.view(-1, *[1] * (self.start.ndim - 1)))

    @property
    def beside(self) -> tuple[torch.Tensor, ...]:
        """What the output depends on besides."""
        return self.ids, self.mask, self.targets


class Explainer(Predictor):
    """A classifier that tells what moved it; weights in float32, products as precise as in training."""

    _products = _now = "fp32"
    _takes_shares = False

    @classmethod
    def load(cls, model_dir: Path, *, precision: str | None = None) -> Self:
        """As :meth:`Predictor.load`, in float32 unless told otherwise."""
        found = super().load(model_dir, precision=precision or "fp32")
        # The fused kernels' backward passes are slow on a CPU; on a GPU they refuse some lengths of text.
        found._model.set_attn_implementation("eager")
        found._model.requires_grad_(False)  # what is asked for are gradients of the text
        found._products = places.precision(found._model.device)
        found._takes_shares = found._probe()
        return found

    def _probe(self) -> bool:
        """Whether the model's attention takes shares: with all of them 1 it answers as it does without."""
        ids = torch.tensor([self._encoder.encode(["a b c"]).ids[0].tolist()], device=self._model.device)
        mask = torch.ones_like(ids)
        try:
            with torch.no_grad():
                plain = self._model(input_ids=ids, attention_mask=mask).logits
                shared = self._model(
                    input_ids=ids, attention_mask=_attention(torch.ones(ids.shape), mask)
                ).logits
        except (ValueError, RuntimeError, TypeError, IndexError):
            return False
        return bool(torch.allclose(plain, shared, atol=1e-3))

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
        found: dict[int, Explanation] = {}
        for how in (_QUICK, _PRECISE):
            self._now = self._products if how is _QUICK else "fp32"
            rows = [row for row in range(len(texts)) if row not in found or not found[row].complete]
            for row, weights, difference in self._summed(encoded, labels, rows, how) if rows else ():
                words = _by_word(pieces[row], weights)[:top_k]
                one = Explanation(words, difference, abs(float(weights.sum()) - difference))
                found[row] = one
                if one.complete or how is _PRECISE:
                    task.advance(1)
        return [found[row] for row in range(len(texts))]

    def _summed(
        self, encoded: Encoded, labels: np.ndarray, rows: Sequence[int], how: _Pass
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """Each of the rows with its tokens' weights, float64 of shape (tokens,), and their proper sum."""
        weights = {row: np.zeros(len(encoded.ids[row])) for row in rows}
        outputs: dict[tuple[int, float], float] = {}  # at points of the ways
        # Shares count by their ratio: what is attended to a tenth is far from what is not at all.
        shares = [0.0, *np.geomspace(0.01, 1, STRETCHES).tolist()]
        edges = shares if self._takes_shares else np.linspace(0, 1, STRETCHES + 1).tolist()
        # Stretches of the ways: row, start, end. A row is done when none of its stretches is open.
        opened = [(row, *ends) for row in rows for ends in itertools.pairwise(edges)]
        for depth in range(how.depth + 1):
            before = {row for row, _, _ in opened}
            self._evaluate(encoded, labels, opened, outputs)
            refuse_nan(np.array([[value] for value in outputs.values()]))
            missed = []
            for (row, start, end), found in self._attributed(encoded, labels, opened):
                whole = outputs[row, 1.0] - outputs[row, 0.0]
                gap = abs(found.sum() - (outputs[row, end] - outputs[row, start]))
                if gap <= max(how.tolerance * abs(whole), how.least) or depth == how.depth:
                    weights[row] += found
                else:
                    middle = (start + end) / 2
                    missed += [(row, start, middle), (row, middle, end)]
            opened = missed
            for row in sorted(before - {row for row, _, _ in opened}):
                yield row, weights[row], outputs[row, 1.0] - outputs[row, 0.0]
            if not opened:
                return

    def _evaluate(
        self,
        encoded: Encoded,
        labels: np.ndarray,
        stretches: Sequence[tuple[int, float, float]],
        outputs: dict[tuple[int, float], float],
    ) -> None:
        """Add the outputs at the ends of the stretches, where they are not known, to ``outputs``."""
        points = {(row, point) for row, *ends in stretches for point in ends} - outputs.keys()
        for batch in self._batches(encoded, sorted(points), 1):
            ways = self._ways(encoded, labels, [row for row, _ in batch])
            with torch.no_grad():
                found = self._log_odds(ways.at([point for _, point in batch]), *ways.beside)
            outputs.update(zip(batch, found.double().cpu().tolist(), strict=True))

    def _attributed(
        self, encoded: Encoded, labels: np.ndarray, stretches: Sequence[tuple[int, float, float]]
    ) -> Iterator[tuple[tuple[int, float, float], np.ndarray]]:
        """Each stretch with its tokens' weights, float64 of shape (tokens,)."""
        # A stretch of a straight way is a straight way itself.
        method = IntegratedGradients(self._log_odds)
        for batch in self._batches(encoded, stretches, POINTS):
            ways = self._ways(encoded, labels, [row for row, _, _ in batch])
            room = token_budget(self._model.device) // ways.mask.shape[1]
            weights = method.attribute(
                ways.at([end for _, _, end in batch]),
                baselines=ways.at([start for _, start, _ in batch]),
                additional_forward_args=ways.beside,
                n_steps=POINTS,
                internal_batch_size=max(len(batch), room),
            )
            weights = weights.detach() if weights.ndim == 2 else weights.detach().sum(dim=-1)
            by_token = weights.double().cpu().numpy()
            for stretch, found in zip(batch, by_token, strict=True):
                yield stretch, found[: len(encoded.ids[stretch[0]])]

    def _batches(self, encoded: Encoded, tasks: Sequence[T], points: int) -> Iterator[list[T]]:
        """Tasks (row first) whose texts are of like length, each asking for so many points at a time."""
        room = token_budget(self._model.device) // points
        order = sorted(tasks, key=lambda one: -len(encoded.ids[one[0]]))
        start = 0
        while start < len(order):
            most = max(1, room // max(1, len(encoded.ids[order[start][0]])))
            yield order[start : start + most]
            start += most

    def _ways(self, encoded: Encoded, labels: np.ndarray, rows: Sequence[int]) -> _Ways:
        """The straight ways from the empty text to the texts of the rows."""
        place = self._model.device
        batch = batch_tensors(encoded, np.asarray(rows), self._encoder.pad_id, place)
        ids = batch["input_ids"]
        special = np.zeros(tuple(ids.shape), dtype=bool)
        for number, row in enumerate(rows):
            special[number, : len(encoded.ids[row])] = self._encoder.special(len(encoded.ids[row]))
        fixed = torch.from_numpy(special).to(place)
        targets = torch.from_numpy(labels[list(rows)]).to(place)
        mask = batch["attention_mask"]
        if self._takes_shares:
            return _Ways(fixed.float(), torch.ones_like(fixed, dtype=torch.float32), ids, mask, targets)
        empty = torch.where(fixed, ids, self._nothing())
        look_up = self._model.get_input_embeddings()
        with torch.no_grad():
            return _Ways(look_up(empty), look_up(ids), ids, mask, targets)

    def _nothing(self) -> int:
        """The token that stands for a missing one: padding, where it has a position like any other."""
        tokenizer, pad = self._encoder.tokenizer, self._encoder.pad_id
        if not numbers_from_padding(self._model.config):
            return pad
        others = (tokenizer.mask_token_id, tokenizer.unk_token_id)
        return next((token for token in others if token is not None), pad)

    def _log_odds(
        self, text: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Log-odds (B,) of each row's target class against all others together.

        Args:
            text: shares of the tokens, shape (B, T), or their vectors, shape (B, T, size).
            ids: the tokens, shape (B, T).
            mask: attention mask, shape (B, T).
            targets: the classes, shape (B,).
        """
        given = (
            {"input_ids": ids, "attention_mask": _attention(text, mask)}
            if text.ndim == 2
            else {"inputs_embeds": text, "attention_mask": mask}
        )
        with places.autocast(self._model.device, self._now):
            logits = self._model(**given).logits.float()
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


def _attention(shares: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What is added to the scores of attention so that tokens get their shares of it.

    Args:
        shares: of each token, shape (B, T).
        mask: 0 for padding, shape (B, T).

    Returns:
        Shape (B, 1, T, T): the same in each row, for whichever token attends.
    """
    bias = shares.to(mask.device).clamp_min(_NO_SHARE).log()
    bias = bias.masked_fill(mask == 0, torch.finfo(bias.dtype).min)
    return bias[:, None, None, :].expand(-1, 1, mask.shape[1], -1)


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
