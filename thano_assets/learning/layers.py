"""An encoder layer of BERT's shape with a backward pass of its own, for training on a CPU.

What PyTorch would derive from the stock layer is the same function; three things make it slow on a CPU. The
fused attention kernel runs at a sixth of the rate that plain batched products reach. Automatic mixed
precision casts every operand and keeps residuals, scores and probabilities in float32, so that memory, not
arithmetic, bounds a step. And whatever a layer saves for its backward pass is fresh memory each time, whose
pages the system clears. Here everything between two layers is in one number format, products are plain, and
one buffer per layer, taken again at every step, holds what is saved.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import torch
from torch.nn import functional

_CHUNK = 3 << 20  # attention scores computed at once: what a processor's shared cache holds
_aten = torch.ops.aten


class Buffers:
    """Memory that goes round: taken by a forward pass, given back by its backward pass."""

    def __init__(self) -> None:
        self._free: list[torch.Tensor] = []
        self._lock = threading.Lock()

    def take(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """A flat tensor of at least ``count`` elements, its values undefined."""
        with self._lock:
            self._free = [buffer for buffer in self._free if buffer.dtype == dtype]
            fitting = [place for place, buffer in enumerate(self._free) if buffer.numel() >= count]
            if fitting:
                return self._free.pop(min(fitting, key=lambda place: self._free[place].numel()))
            if self._free:  # too small, and the steps to come will rather be larger
                self._free.pop()
        with torch.inference_mode(False):  # what is made while judging is written to while training, too
            return torch.empty(count, dtype=dtype)

    def give(self, buffer: torch.Tensor) -> None:
        """Hand back what was taken."""
        with self._lock:
            self._free.append(buffer)


class LayerWeights:
    """A stock layer's parameters, and copies of its matrices in the number format of the products.

    The copies are made again only when the parameters have changed: once per optimiser step, however many
    parts its batch is computed in. A fused optimiser changes parameters without raising their versions, so
    whoever steps must call :meth:`changed`. Query, key and value are one matrix, with the scale of the scores
    in the query's share of it.

    Args:
        layer: a ``BertLayer`` or ``ElectraLayer``.
    """

    def __init__(self, layer: Any) -> None:
        attention = layer.attention.self
        self.heads: int = attention.num_attention_heads
        self.scaling: float = attention.scaling
        self.attention_dropout: torch.nn.Dropout = attention.dropout
        self.hidden_dropouts: tuple[torch.nn.Dropout, torch.nn.Dropout] = (
            layer.attention.output.dropout,
            layer.output.dropout,
        )
        self.epsilons: tuple[float, float] = (
            layer.attention.output.LayerNorm.eps,
            layer.output.LayerNorm.eps,
        )
        self._modules = (
            attention.query,
            attention.key,
            attention.value,
            layer.attention.output.dense,
            layer.attention.output.LayerNorm,
            layer.intermediate.dense,
            layer.output.dense,
            layer.output.LayerNorm,
        )
        self._lock = threading.Lock()
        self._of: tuple[Any, ...] = ()
        self._copies: list[torch.Tensor] = []

    def changed(self) -> None:
        """Forget the copies."""
        self._of, self._copies = (), []

    def parameters(self) -> list[torch.nn.Parameter]:
        """Weight and bias of query, key, value, output, its norm, both feed-forward matrices, their norm."""
        return [parameter for module in self._modules for parameter in (module.weight, module.bias)]

    @torch.no_grad()
    def copies(self, dtype: torch.dtype) -> list[torch.Tensor]:
        """Weight and bias of query-key-value, output and both feed-forward matrices in ``dtype``."""
        found = self.parameters()
        state = (dtype, *((parameter.data_ptr(), parameter._version) for parameter in found))
        with self._lock:
            if state != self._of:
                wq, bq, wk, bk, wv, bv, wo, bo, _, _, wi, bi, wf, bf, _, _ = found
                joined = (
                    torch.cat([wq * self.scaling, wk, wv]),
                    torch.cat([bq * self.scaling, bk, bv]),
                )
                self._copies = [tensor.detach().to(dtype) for tensor in (*joined, wo, bo, wi, bi, wf, bf)]
                self._of = state
            return self._copies


def encoder_layer(
    x: torch.Tensor, lengths: list[int], weights: LayerWeights, buffers: Buffers, training: bool
) -> torch.Tensor:
    """The layer's output, of the shape and number format of ``x``.

    Args:
        x: hidden states (B, T, H), contiguous; products are computed in its number format.
        lengths: tokens of each row, B of them; those after are padding, which no token attends to.
        weights: of the layer; gradients arrive in its parameters as from the stock layer.
        buffers: this layer's own.
        training: whether to drop out at the stock modules' rates.
    """
    rates = (
        (weights.attention_dropout.p, *(module.p for module in weights.hidden_dropouts))
        if training
        else (0.0, 0.0, 0.0)
    )
    found: torch.Tensor = _EncoderLayer.apply(
        x, lengths, weights, buffers, rates, torch.is_grad_enabled(), *weights.parameters()
    )
    return found


class _EncoderLayer(torch.autograd.Function):
    """Post-norm self-attention and feed-forward (Vaswani et al. 2017; Devlin et al. 2019), GELU between."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        lengths: list[int],
        weights: LayerWeights,
        buffers: Buffers,
        rates: tuple[float, float, float],
        keep: bool,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        rows, width, hidden = x.shape
        heads, tokens = weights.heads, rows * width
        size = hidden // heads
        wqkv, bqkv, wo, bo, wi, bi, wf, bf = copies = weights.copies(x.dtype)
        inner = wi.shape[0]
        shapes: list[tuple[int, ...]] = [
            (3, rows * heads, width, size),  # query, key, value
            (rows * heads, width, width),  # probabilities
            (tokens, hidden),  # what attention gives
            (tokens, hidden),  # … before and
            (tokens, hidden),  # … after the first norm
            (tokens, inner),  # before GELU
            (tokens, hidden),  # before the second norm
        ]
        arena = buffers.take(sum(math.prod(shape) for shape in shapes), x.dtype)
        qkv, p, c, a, h, z, o = _carved(arena, shapes)

        flat = x.view(tokens, hidden)
        joined = torch.addmm(bqkv, flat, wqkv.t())
        qkv.view(3, rows, heads, width, size).copy_(
            joined.view(rows, width, 3, heads, size).permute(2, 0, 3, 1, 4)
        )
        q, k, v = qkv.unbind(0)
        mixed = torch.empty_like(q)
        kept_share = 1 - rates[0]
        for part in _chunks(rows, heads, width):
            scores = torch.bmm(q[part], k[part].transpose(1, 2), out=p[part])
            for row in range(part.start // heads, part.stop // heads):
                if lengths[row] < width:
                    first = row * heads - part.start
                    scores[first : first + heads, :, lengths[row] :] = -math.inf
            _aten._softmax.out(scores, -1, False, out=scores)
            if rates[0]:
                _drop_by_sign(scores, rates[0])
                scores = scores.relu()
            torch.bmm(scores, v[part], out=mixed[part])
        if rates[0]:
            mixed /= kept_share
        c.view(rows, width, heads, size).copy_(mixed.view(rows, heads, width, size).transpose(1, 2))

        def add_and_norm(
            out: torch.Tensor, before: torch.Tensor, rate: float, place: int, epsilon: float
        ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
            mask = _hidden_mask(out, rate)
            if mask is not None:
                out.mul_(mask)
            out.add_(before)
            scale, shift = parameters[place], parameters[place + 1]
            normed, mean, deviation = _aten.native_layer_norm(out, [hidden], scale, shift, epsilon)
            return normed, mask, mean, deviation

        torch.addmm(bo, c, wo.t(), out=a)
        normed, mask_a, mean_a, deviation_a = add_and_norm(a, flat, rates[1], 8, weights.epsilons[0])
        h.copy_(normed)
        torch.addmm(bi, h, wi.t(), out=z)
        torch.addmm(bf, functional.gelu(z), wf.t(), out=o)
        y, mask_o, mean_o, deviation_o = add_and_norm(o, h, rates[2], 14, weights.epsilons[1])
        if not keep:
            buffers.give(arena)
            return y.view_as(x)
        norms = (mean_a, deviation_a, mean_o, deviation_o)
        ctx.save_for_backward(x, *norms, *(parameters[place] for place in (8, 9, 14, 15)))
        ctx.buffers, ctx.arena, ctx.shapes, ctx.copies = buffers, arena, shapes, copies
        ctx.masks, ctx.kept_share, ctx.scaling = (mask_a, mask_o), kept_share, weights.scaling
        return y.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.arena is None:
            raise RuntimeError("The backward pass of an encoder layer can be run once.")
        x, mean_a, deviation_a, mean_o, deviation_o, scale_a, shift_a, scale_o, shift_o = ctx.saved_tensors
        qkv, p, c, a, h, z, o = _carved(ctx.arena, ctx.shapes)
        wqkv, _, wo, _, wi, _, wf, _ = ctx.copies
        mask_a, mask_o = ctx.masks
        rows, width, hidden = x.shape
        tokens, size = rows * width, qkv.shape[3]
        heads = hidden // size

        # In float32: PyTorch's kernel for bfloat16 sums the gradients of scale and shift in bfloat16, which
        # took a third of their length away.
        do, dscale_o, dshift_o = _aten.native_layer_norm_backward(
            dy.reshape(tokens, hidden).float(),
            o.float(),
            [hidden],
            mean_o,
            deviation_o,
            scale_o,
            shift_o,
            [True] * 3,
        )
        do = do.to(x.dtype)
        dense = do if mask_o is None else do * mask_o
        g = functional.gelu(z)
        dwf, dbf = _weight_gradients(dense, g)
        dz = _aten.gelu_backward(torch.mm(dense, wf, out=g), z)
        dwi, dbi = _weight_gradients(dz, h)
        dh = torch.mm(dz, wi).add_(do)
        da, dscale_a, dshift_a = _aten.native_layer_norm_backward(
            dh.float(), a.float(), [hidden], mean_a, deviation_a, scale_a, shift_a, [True] * 3
        )
        da = da.to(x.dtype)
        dense = da if mask_a is None else da * mask_a
        dwo, dbo = _weight_gradients(dense, c)
        dmixed = torch.mm(dense, wo)
        if ctx.kept_share < 1:
            dmixed /= ctx.kept_share
        dmixed = dmixed.view(rows, width, heads, size).transpose(1, 2).reshape(rows * heads, width, size)

        q, k, v = qkv.unbind(0)
        dq = torch.empty_like(q)
        # Transposed, because a product with the large operand transposed runs at two thirds of the rate.
        dkv = torch.empty(2, rows * heads, size, width, dtype=x.dtype)
        workspace = torch.empty_like(p[next(_chunks(rows, heads, width))])
        for part in _chunks(rows, heads, width):
            probabilities, ds = p[part], workspace[: part.stop - part.start]
            if ctx.kept_share < 1:
                torch.bmm(dmixed[part].transpose(1, 2), probabilities.relu(), out=dkv[1, part])
                torch.bmm(dmixed[part], v[part].transpose(1, 2), out=ds)
                _aten.threshold_backward.grad_input(ds, probabilities, 0, grad_input=ds)
                probabilities.abs_()
            else:
                torch.bmm(dmixed[part].transpose(1, 2), probabilities, out=dkv[1, part])
                torch.bmm(dmixed[part], v[part].transpose(1, 2), out=ds)
            _aten._softmax_backward_data.out(ds, probabilities, -1, ds.dtype, grad_input=ds)
            torch.bmm(ds, k[part], out=dq[part])
            torch.bmm(q[part].transpose(1, 2), ds, out=dkv[0, part])
        djoined = torch.empty(rows, width, 3, heads, size, dtype=x.dtype)
        djoined[:, :, 0].copy_(dq.view(rows, heads, width, size).transpose(1, 2))
        djoined[:, :, 1:].copy_(dkv.view(2, rows, heads, size, width).permute(1, 4, 0, 2, 3))
        flat = djoined.view(tokens, 3 * hidden)
        dwqkv, dbqkv = _weight_gradients(flat, x.view(tokens, hidden))
        dx = torch.mm(flat, wqkv).add_(da).view_as(x) if ctx.needs_input_grad[0] else None
        ctx.buffers.give(ctx.arena)
        ctx.arena = None

        wide = [gradient.float() for gradient in (*dwqkv.chunk(3), *dbqkv.chunk(3))]
        return (
            dx,
            *(None,) * 5,
            *(wide[0].mul_(ctx.scaling), wide[3].mul_(ctx.scaling), wide[1], wide[4], wide[2], wide[5]),
            *(dwo.float(), dbo.float(), dscale_a, dshift_a),
            *(dwi.float(), dbi.float(), dwf.float(), dbf.float(), dscale_o, dshift_o),
        )


def _carved(arena: torch.Tensor, shapes: list[tuple[int, ...]]) -> list[torch.Tensor]:
    """Consecutive pieces of a flat tensor in these shapes."""
    found, start = [], 0
    for shape in shapes:
        count = math.prod(shape)
        found.append(arena[start : start + count].view(shape))
        start += count
    return found


def _chunks(rows: int, heads: int, width: int) -> Any:
    """Slices over (row, head) pairs, whole rows each, the first the largest."""
    step = max(1, _CHUNK // (heads * width * width))
    for start in range(0, rows, step):
        yield slice(start * heads, min(start + step, rows) * heads)


def _weight_gradients(dy: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of weight (out, in) and bias (out,) of a linear layer."""
    return torch.mm(dy.t(), x), dy.sum(0)


def _random_int16(count: int) -> torch.Tensor:
    """Uniform over all int16 values; an eighth of the time that PyTorch's Bernoulli numbers take."""
    return torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)[:count]


def _hidden_mask(like: torch.Tensor, rate: float) -> torch.Tensor | None:
    """Inverted dropout's factors, 0 or 1 / (1 - rate), of the shape of ``like``; ``None`` at rate 0."""
    if not rate:
        return None
    threshold = round(rate * 65536) - 32768
    kept = _random_int16(like.numel()).view_as(like) >= threshold
    return kept.to(like.dtype).div_(1 - rate)


def _drop_by_sign(probabilities: torch.Tensor, rate: float) -> None:
    """Give the share ``rate`` of the probabilities, drawn at random, a minus sign, in place.

    What is dropped and what it was thus fit in one tensor: ReLU drops, the absolute value brings back.
    """
    draws = _random_int16(probabilities.numel()).view_as(probabilities)
    if probabilities.dtype == torch.bfloat16:
        # Negative exactly where dropped; half the range, so that nothing overflows.
        draws.bitwise_right_shift_(1).add_(16384 - round(rate * 32768)).bitwise_and_(-32768)
        probabilities.view(torch.int16).bitwise_or_(draws)
    else:
        threshold = round(rate * 65536) - 32768
        probabilities.mul_((draws >= threshold).to(probabilities.dtype).mul_(2).sub_(1))
