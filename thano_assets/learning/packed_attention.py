"""Attention over texts that lie one behind the other, without padding, on a CPU.

Texts of a batch are kept as one matrix with a row per token, so nothing is computed for padding. Attention
goes text by text (or over several short ones of the same length) through scratch memory that stays in the
processor's cache: fused attention is slow there for small heads (a head of 32 numbers, 256 tokens: 25 ms of a
layer's 60 for 4,096 tokens in bfloat16, against 11).

The softmax is taken in powers of two without the maximum of its row, which would be two more passes
over the scores: exact as long as the sums stay within the range of the numbers. They are looked at, and where
one does not, the layer's attention is computed again in the usual way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

#: ``(first row, texts, tokens of each)`` of texts that lie one behind the other.
Group = tuple[int, int, int]

# Scores held at a time for each thread: those of one text of 256 tokens with 12 heads, 1.5 MB in bfloat16.
_SCORES = 12 * 256 * 256
# Sums of powers that are exact enough: float32 and bfloat16 reach from 2^-126 to 2^128.
_LEAST, _MOST = 2.0**-64, 2.0**120


def groups_of(lengths: Sequence[int]) -> list[Group]:
    """Runs of texts of the same length.

    Args:
        lengths: tokens of each text, in the order of the rows.
    """
    found: list[Group] = []
    first = 0
    for length in lengths:
        if found and found[-1][2] == length:
            start, count, _ = found[-1]
            found[-1] = (start, count + 1, length)
        else:
            found.append((first, 1, length))
        first += length
    return found


def attention(products: torch.Tensor, groups: Sequence[Group], heads: int, out: torch.Tensor) -> None:
    """Attention of each text to itself.

    Args:
        products: queries, keys and values side by side, shape (M, 3 * heads * size). The queries are scaled
            by log2(e) / sqrt(size), so scores are logarithms to base 2.
        groups: what rows belong together.
        heads: of the attention.
        out: shape (M, heads * size); rows of no group are left as they are.
    """
    rows = groups[-1][0] + groups[-1][1] * groups[-1][2]
    longest = max(length for _, _, length in groups)
    room = max(_SCORES * torch.get_num_threads(), heads * longest * longest)
    scores = products.new_empty(room)
    sums = products.new_empty(rows, heads, dtype=torch.float32)
    for stable in (False, True):
        for piece in _pieces(groups, lambda length: room // (heads * length * length)):
            _attend(products, piece, heads, scores, sums, out, stable=stable)
        least, most = sums.aminmax()
        if stable or bool(least > _LEAST and most < _MOST):
            break
    out[:rows].view(rows, heads, -1).div_(sums.unsqueeze(-1))


def _attend(
    products: torch.Tensor,
    piece: Group,
    heads: int,
    scores: torch.Tensor,
    sums: torch.Tensor,
    out: torch.Tensor,
    *,
    stable: bool,
) -> None:
    """Sums of the powers, and values weighted by the powers, for the texts of one piece."""
    first, count, length = piece
    width = out.shape[1]
    size = width // heads
    rows = slice(first, first + count * length)
    # (count * heads, length, size); a single text's heads are views, others are copied
    query, key, value = (
        part.unflatten(0, (count, length)).unflatten(2, (heads, size)).transpose(1, 2).flatten(0, 1)
        for part in products[rows].split(width, dim=1)
    )
    held = scores[: count * heads * length * length].view(count * heads, length, length)
    # Keys that lie between queries and values slow the product more than a copy of them costs.
    torch.bmm(query, key.contiguous().transpose(1, 2), out=held)
    if stable:
        held.sub_(held.amax(dim=-1, keepdim=True))
    held.exp2_()
    total = held.sum(dim=-1, dtype=torch.float32)
    sums[rows].view(count, length, heads).copy_(total.view(count, heads, length).transpose(1, 2))
    places = out[rows].view(count, length, heads, size).transpose(1, 2)
    if count == 1:
        torch.bmm(held, value, out=places[0])
    else:
        places.copy_(torch.bmm(held, value).view(count, heads, length, size))


def first_token_attention(
    hidden: torch.Tensor, queries: torch.Tensor, groups: Sequence[Group]
) -> torch.Tensor:
    """Means of the texts' tokens, weighted by how each head of the first token attends to them.

    Args:
        hidden: shape (M, E).
        queries: shape (N, heads, E), scaled: scores are natural logarithms.
        groups: of the texts, at most N; rows beyond them are zeros.

    Returns:
        Shape (N, heads, E).
    """
    found = torch.zeros_like(queries)
    text = 0
    for first, count, length in _pieces(groups):
        tokens = hidden[first : first + count * length].view(count, length, -1)
        part = slice(text, text + count)
        weights = torch.bmm(queries[part], tokens.transpose(1, 2)).softmax(dim=-1)
        torch.bmm(weights, tokens, out=found[part])
        text += count
    return found


def _pieces(groups: Iterable[Group], most: Callable[[int], int] = lambda length: 1 << 30) -> Iterator[Group]:
    """The groups in pieces of 1, 2, 4, … texts, at most ``most(length)`` of them, largest first.

    A kernel is made for every shape met, and kept: few shapes save time and hundreds of megabytes.
    """
    for first, left, length in groups:
        while left:
            count = 1 << min(left, max(1, most(length))).bit_length() - 1
            yield first, count, length
            first += count * length
            left -= count
