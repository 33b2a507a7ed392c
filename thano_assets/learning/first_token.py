"""ELECTRA's and BERT's classifiers computed for training on a CPU, to the same logits and gradients.

Their heads read nothing but the last layer's first token. That layer therefore needs one query a text, and
with one query its keys and values need not be computed at all: q · (W x) = (Wᵀ q) · x, and Σ p (W x) =
W (Σ p x). It costs next to nothing, in float32. The layers below are those of :mod:`.layers`. The model
stays the stock one of Transformers, its parameters and what it saves are untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers.modeling_outputs import SequenceClassifierOutput

from .layers import Buffers, LayerWeights, encoder_layer

# By name: to import the class of the other kind costs a second.
_BERT = ("transformers.models.bert.modeling_bert", "BertForSequenceClassification")
_ELECTRA = ("transformers.models.electra.modeling_electra", "ElectraForSequenceClassification")


def supported(model: Any) -> bool:
    """Whether :class:`FirstTokenEncoder` computes what ``model`` does, on this model's device."""
    if (type(model).__module__, type(model).__name__) not in (_BERT, _ELECTRA):
        return False
    config = model.config
    return bool(
        model.device.type == "cpu"
        and all(parameter.dtype == torch.float32 for parameter in model.parameters())
        and not config.is_decoder
        and not config.add_cross_attention
        and not getattr(model.base_model, "gradient_checkpointing", False)
        and config.hidden_act == "gelu"
        and config.chunk_size_feed_forward == 0
        and config.hidden_size % config.num_attention_heads == 0
    )


class FirstTokenEncoder:
    """The last hidden state at each text's first token.

    Args:
        model: a classifier for which :func:`supported` holds.
    """

    def __init__(self, model: Any) -> None:
        self._base = model.base_model
        layers = self._base.encoder.layer
        self._lower = [(LayerWeights(layer), Buffers()) for layer in layers[:-1]]
        self._last = layers[-1]

    def changed(self) -> None:
        """Tell that an optimiser has changed the model's parameters."""
        for weights, _ in self._lower:
            weights.changed()

    def __call__(self, input_ids: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Float32 (B, H) of token ids (B, T), of which row b has ``lengths[b]`` that are no padding.

        Products are computed in bfloat16 where autocast says so, in float32 elsewhere.
        """
        base = self._base
        training = base.training
        mixed = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if mixed else torch.float32
        x = base.embeddings(input_ids=input_ids)
        if hasattr(base, "embeddings_project"):
            x = base.embeddings_project(x)
        with torch.autocast("cpu", enabled=False):
            x = x.to(dtype).contiguous()
            for weights, buffers in self._lower:
                x = encoder_layer(x, lengths, weights, buffers, training)
            return _first_token_layer(self._last, x.float(), lengths)


def _first_token_layer(layer: Any, x: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """The layer's output at the first token, float32 (B, H), from float32 hidden states (B, T, H)."""
    attention = layer.attention.self
    rows, width, hidden = x.shape
    heads, size = attention.num_attention_heads, attention.attention_head_size
    first = x[:, 0]
    query = functional.linear(first, attention.query.weight, attention.query.bias).view(rows, heads, size)
    query = query * attention.scaling
    # The key's bias adds the same to all scores of a query. It is kept for its gradient, which is zero.
    same = (query * attention.key.bias.view(heads, size)).sum(-1, keepdim=True)
    seeking = torch.einsum("bhd,hdk->bhk", query, attention.key.weight.view(heads, size, hidden))
    scores = torch.bmm(seeking, x.transpose(1, 2)) + same
    padding = torch.arange(width) >= torch.tensor(lengths)[:, None]
    probabilities = scores.masked_fill(padding[:, None], -torch.inf).softmax(-1)
    probabilities = functional.dropout(probabilities, attention.dropout.p, attention.training)
    found = torch.bmm(probabilities, x)
    context = torch.einsum("bhk,hdk->bhd", found, attention.value.weight.view(heads, size, hidden))
    # Dropped probabilities no longer add up to 1, so the value's bias is weighed by what they add up to.
    context = context + probabilities.sum(-1, keepdim=True) * attention.value.bias.view(heads, size)
    return layer.feed_forward_chunk(layer.attention.output(context.reshape(rows, hidden), first))


@contextmanager
def trained_by_first_token(model: Any) -> Iterator[bool]:
    """Inside the block, ``model(input_ids=, attention_mask=)`` is computed in this module's way.

    Yields whether it is. A model that is not supported, and a call with other arguments or with padding
    elsewhere than at a text's end, is computed by Transformers.
    """
    if not supported(model):
        yield False
        return
    encoder = FirstTokenEncoder(model)
    unpatched = model.forward

    def forward(
        self: Any,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **rest: Any,
    ) -> Any:
        lengths = None if attention_mask is None or rest else lengths_of(attention_mask)
        if input_ids is None or lengths is None:
            return unpatched(input_ids=input_ids, attention_mask=attention_mask, **rest)
        found = encoder(input_ids, lengths)
        with torch.autocast("cpu", enabled=False):
            if self.config.model_type == "electra":
                logits = self.classifier(found[:, None])
            else:
                logits = self.classifier(self.dropout(self.bert.pooler(found[:, None])))
        return SequenceClassifierOutput(logits=logits)

    model.forward = MethodType(forward, model)  # on the instance: it hides the class's
    watch = register_optimizer_step_post_hook(lambda *_: encoder.changed())
    try:
        yield True
    finally:
        watch.remove()
        del model.forward


def lengths_of(attention_mask: torch.Tensor) -> list[int] | None:
    """Tokens of each row of a mask (B, T) of ones and zeros; ``None`` where padding is not at the end."""
    if attention_mask.dim() != 2 or bool((attention_mask[:, 1:] > attention_mask[:, :-1]).any()):
        return None
    found: list[int] = attention_mask.sum(1).tolist()
    return found if min(found) > 0 else None
