"""BERT's and ELECTRA's encoder for inference alone, from ``config.json`` and ``model.safetensors``.

Importing Transformers' modelling code takes seconds and its forward pass serves training as well. The layers
here are those of Devlin et al., "BERT" (2019), which ELECTRA's are too: learned positions, layer
normalization after each sum, exact GELU. What differs is how they are computed:

* queries, keys and values are one product, with the scale of the scores folded into its weights;
* on a CPU texts lie one behind the other without padding (see :mod:`.packed_attention`);
* of the last layer only what is read of it is computed. A classifier reads the first token, so keys and
  values of the other tokens are not needed one by one: a score is ``(q W_k) · x``, and the weighted mean of
  values is ``(Σ p x) W_v``. Biases of the keys add the same to all scores of a row and fall out of the
  softmax.

Anything else than that layout is left to Transformers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from .fused_linear import FusedLinear, fuses
from .packed_attention import Group, attention, first_token_attention, groups_of

_HEADS = {
    "electra": ("classifier.dense", "classifier.out_proj"),
    "bert": ("bert.pooler.dense", "classifier"),
}
_SETTINGS = {  # what the layers below assume, where a configuration says anything about it
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
}
_UNKNOWN = ("quantization_config", "auto_map", "pruned_heads")
_LONGEST = 1024  # positions; scores of a text are held all at once
# Tokens and texts of a batch are multiples of these, so that kernels are made for few shapes.
_STEP, _TEXTS_STEP = 64, 32
_LOG2_E = 1 / math.log(2)


class NotServed(ValueError):  # noqa: N818 (the caller goes on in another way)
    """The folder's model is of another kind, or not complete."""


@dataclass(frozen=True)
class Layout:
    """Sizes and weights of a folder's encoder.

    Attributes:
        config: what ``config.json`` says, with ``id2label`` from numbers to labels.
        weights: tensors in the precision that they are kept in, by their names without the encoder's prefix;
            those of the classifier under ``head.0`` and ``head.1``.
    """

    config: SimpleNamespace
    weights: Mapping[str, Tensor]
    heads: int
    layers: int
    epsilon: float

    @classmethod
    def read(cls, model_dir: Path, *, classifier: bool) -> Layout:
        """Read a Hugging Face folder.

        Raises:
            NotServed: Transformers has to read it.
        """
        try:
            said = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
            with safe_open(model_dir / "model.safetensors", framework="pt") as file:
                stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, ValueError, SafetensorError) as error:
            raise NotServed(str(error)) from error
        kind = said.get("model_type")
        if kind not in _HEADS or any(said.get(name) for name in _UNKNOWN):
            raise NotServed(str(kind))
        for name, value in _SETTINGS.items():
            if said.get(name, value) != value:
                raise NotServed(f"{name}={said[name]}")
        weights = {
            name.removeprefix(f"{kind}."): value
            for name, value in stored.items()
            if name.startswith((f"{kind}.", "embeddings", "encoder.")) and not name.endswith("position_ids")
        }
        if classifier:
            for place, name in enumerate(_HEADS[kind]):
                for part in ("weight", "bias"):
                    weights[f"head.{place}.{part}"] = _get(stored, f"{name}.{part}")
        for name in [name for name in weights if name.startswith("pooler.")]:
            del weights[name]
        hidden, layers, heads = (
            said.get(name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")
        )
        if not (hidden and layers and heads) or hidden % heads:
            raise NotServed("sizes")
        wanted = _shapes(
            said, _get(weights, "embeddings.word_embeddings.weight").shape[1], classifier, weights
        )
        if {name: tuple(value.shape) for name, value in weights.items()} != wanted:
            raise NotServed("weights")
        positions = said["max_position_embeddings"] = len(weights["embeddings.position_embeddings.weight"])
        if positions > _LONGEST:
            raise NotServed("positions")
        said["id2label"] = _labels(said, len(weights["head.1.bias"]) if classifier else None)
        return cls(SimpleNamespace(**said), weights, heads, layers, said.get("layer_norm_eps", 1e-12))


def _get(weights: Mapping[str, Tensor], name: str) -> Tensor:
    found = weights.get(name)
    if found is None or not found.is_floating_point() or found.dtype.itemsize < 2:
        raise NotServed(name)
    return found


def _labels(said: dict[str, Any], outputs: int | None) -> dict[int, str]:
    try:
        named = {int(number): str(label) for number, label in said.get("id2label", {}).items()}
    except (AttributeError, ValueError) as error:
        raise NotServed("id2label") from error
    if outputs is None:
        return named
    named = named or {number: f"LABEL_{number}" for number in range(outputs)}
    if sorted(named) != list(range(outputs)):
        raise NotServed("id2label")
    return named


def _shapes(
    said: dict[str, Any], embedding: int, classifier: bool, weights: Mapping[str, Tensor]
) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of such a model; counts of tokens and positions are taken as they are."""
    hidden, inner = said["hidden_size"], said.get("intermediate_size") or 0
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, outputs: int, inputs: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str, size: int) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (size,)

    for table in ("word", "position", "token_type"):
        name = f"embeddings.{table}_embeddings.weight"
        found[name] = (len(_get(weights, name)), embedding)
    norm("embeddings.LayerNorm", embedding)
    if said["model_type"] == "electra" and embedding != hidden:
        linear("embeddings_project", hidden, embedding)
    elif embedding != hidden:
        raise NotServed("embedding")
    for layer in range(said["num_hidden_layers"]):
        place = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            linear(f"{place}.attention.self.{part}", hidden, hidden)
        linear(f"{place}.attention.output.dense", hidden, hidden)
        norm(f"{place}.attention.output.LayerNorm", hidden)
        linear(f"{place}.intermediate.dense", inner, hidden)
        linear(f"{place}.output.dense", hidden, inner)
        norm(f"{place}.output.LayerNorm", hidden)
    if classifier:
        linear("head.0", hidden, hidden)
        linear("head.1", len(_get(weights, "head.1.bias")), hidden)
    return found


class _Weights:
    """A layout's tensors on a device, in one precision, put together as they are multiplied."""

    def __init__(self, layout: Layout, place: torch.device, dtype: torch.dtype) -> None:
        self._stored, self.place, self.dtype = layout.weights, place, dtype
        self.epsilon = layout.epsilon
        self._fused = dtype == torch.bfloat16 and place.type == "cpu" and fuses()

    def get(self, name: str, factor: float = 1.0) -> Tensor:
        # Scaled before it is rounded.
        return (self._stored[name].float() * factor).to(self.place, self.dtype)

    def linear(self, *names: str, activation: str = "none", factor: float = 1.0) -> nn.Module:
        """One product for all of ``names``; ``factor`` scales the first."""
        factors = [factor, *[1.0] * (len(names) - 1)]
        weight, bias = (
            torch.cat([self.get(f"{name}.{part}", by) for name, by in zip(names, factors, strict=True)])
            for part in ("weight", "bias")
        )
        return (FusedLinear if self._fused else _Linear)(weight, bias, activation)

    def norm(self, name: str) -> _Norm:
        return _Norm(self.get(f"{name}.weight"), self.get(f"{name}.bias"), self.epsilon)


class _Linear(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor, activation: str = "none") -> None:
        super().__init__()
        self.weight, self.bias, self._curved = weight, bias, activation == "gelu"

    def forward(self, x: Tensor) -> Tensor:
        found = functional.linear(x, self.weight, self.bias)
        return functional.gelu(found) if self._curved else found


class _Norm(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight, self.bias, self.epsilon = weight, bias, epsilon

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


class _Rest(nn.Module):
    """What of a layer follows its attention; ``x`` (…, E) is what the layer was given and is written over."""

    def __init__(self, weights: _Weights, place: str) -> None:
        super().__init__()
        self.out = weights.linear(f"{place}.attention.output.dense")
        self.norm = weights.norm(f"{place}.attention.output.LayerNorm")
        self.up = weights.linear(f"{place}.intermediate.dense", activation="gelu")
        self.down = weights.linear(f"{place}.output.dense")
        self.last_norm = weights.norm(f"{place}.output.LayerNorm")

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.norm(self.out(attended).add_(x))
        found: Tensor = self.last_norm(self.down(self.up(x)).add_(x))
        return found


class _Layer(nn.Module):
    """One layer for all tokens."""

    def __init__(self, weights: _Weights, place: str, heads: int) -> None:
        super().__init__()
        self.heads = heads
        names = [f"{place}.attention.self.{part}" for part in ("query", "key", "value")]
        size = len(weights._stored[f"{names[0]}.bias"]) // heads
        self.products = weights.linear(*names, factor=_LOG2_E / math.sqrt(size))
        self.rest = _Rest(weights, place)

    def packed(self, x: Tensor, groups: Sequence[Group]) -> Tensor:
        """``x`` (M, E) to (M, E)."""
        attended = torch.zeros_like(x)
        attention(self.products(x), groups, self.heads, attended)
        found: Tensor = self.rest(x, attended)
        return found

    def padded(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """``x`` (B, T, E) to (B, T, E); ``seen`` (B, 1, 1, T) is false at padding."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.products(x).chunk(3, dim=-1)
        )
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, scale=1 / _LOG2_E
        )
        found: Tensor = self.rest(x, attended.transpose(1, 2).flatten(2))
        return found


class _FirstTokenLayer(nn.Module):
    """The last layer where only the first token is read."""

    def __init__(self, weights: _Weights, place: str, heads: int) -> None:
        super().__init__()
        self.heads = heads
        own = f"{place}.attention.self"
        hidden = len(weights._stored[f"{own}.query.bias"])
        self.query = weights.linear(f"{own}.query", factor=1 / math.sqrt(hidden // heads))
        # (heads, size, E)
        self.key = weights.get(f"{own}.key.weight").unflatten(0, (heads, -1))
        self.value = weights.get(f"{own}.value.weight").unflatten(0, (heads, -1))
        self.value_bias = weights.get(f"{own}.value.bias")
        self.rest = _Rest(weights, place)

    def packed(self, x: Tensor, groups: Sequence[Group]) -> Tensor:
        """``x`` (M, E) to (N, E), with some rows more."""
        starts = [first + n * length for first, count, length in groups for n in range(count)]
        starts += [0] * (-len(starts) % _TEXTS_STEP)
        firsts = x[torch.tensor(starts, device=x.device)]
        return self._values(firsts, first_token_attention(x, self._queries(firsts), groups))

    def padded(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """``x`` (B, T, E) to (B, E)."""
        scores = self._queries(x[:, 0]) @ x.transpose(1, 2)
        if seen is not None:
            scores = scores.masked_fill(~seen[:, 0], float("-inf"))
        return self._values(x[:, 0], scores.softmax(dim=-1) @ x)

    def _queries(self, firsts: Tensor) -> Tensor:
        """(N, E) to (N, heads, E): what a token is multiplied with for its score."""
        return torch.einsum("nhd,hde->nhe", self.query(firsts).unflatten(1, (self.heads, -1)), self.key)

    def _values(self, firsts: Tensor, means: Tensor) -> Tensor:
        values = torch.einsum("nhe,hde->nhd", means, self.value).flatten(1) + self.value_bias
        found: Tensor = self.rest(firsts, values)
        return found


class _Classifier(nn.Module):
    """ELECTRA's head (exact GELU) or BERT's pooler and head (tanh) over the first token, (N, E) to (N, C)."""

    def __init__(self, weights: _Weights, kind: str) -> None:
        super().__init__()
        self.dense, self.out = weights.linear("head.0"), weights.linear("head.1")
        self.activation = functional.gelu if kind == "electra" else torch.tanh

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(self.activation(self.dense(x))).float()
        return found


class InferenceEncoder(nn.Module):
    """Token ids to logits or vectors; for inference.

    Args:
        layout: sizes and weights.
        place: the device.
        dtype: of the weights and of what lies between the layers.
        pooling: ``None`` for a classifier, else ``'mean'``, ``'cls'`` or ``'max'`` of the tokens' vectors.

    Attributes:
        config: as Transformers' configurations are read: ``config.id2label``.
        packs: whether padding costs nothing.
    """

    def __init__(
        self, layout: Layout, place: torch.device, dtype: torch.dtype, pooling: str | None = None
    ) -> None:
        super().__init__()
        weights = _Weights(layout, place, dtype)
        self.config, self.dtype, self.pooling = layout.config, dtype, pooling
        self.packs = place.type == "cpu"
        self.words = nn.Parameter(weights.get("embeddings.word_embeddings.weight"), requires_grad=False)
        tables = [
            layout.weights[f"embeddings.{name}_embeddings.weight"] for name in ("position", "token_type")
        ]
        self.positions = (tables[0].float() + tables[1][0].float()).to(place, dtype)
        self.norm = weights.norm("embeddings.LayerNorm")
        projected = "embeddings_project.weight" in layout.weights
        self.project = weights.linear("embeddings_project") if projected else nn.Identity()
        places = [f"encoder.layer.{layer}" for layer in range(layout.layers)]
        first_only = pooling in (None, "cls")
        whole = places[:-1] if first_only else places
        self.layers = nn.ModuleList(_Layer(weights, name, layout.heads) for name in whole)
        self.last = _FirstTokenLayer(weights, places[-1], layout.heads) if first_only else None
        self.head = _Classifier(weights, layout.config.model_type) if pooling is None else None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.words.device

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, C), or vectors (B, E) that are not scaled yet; float32.

        Args:
            input_ids: shape (B, T), int64, padded at the end.
            attention_mask: shape (B, T), int64, 0 at padding.
        """
        found = (self._packed if self.packs else self._padded)(input_ids, attention_mask)
        return found[: len(input_ids)] if self.head is None else self.head(found)[: len(input_ids)]

    def _packed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.bool()
        groups = groups_of(attention_mask.sum(dim=1).tolist())
        ids, places = input_ids[mask], torch.arange(mask.shape[1]).expand(mask.shape)[mask]
        further = -len(ids) % _STEP
        x = self._embedded(functional.pad(ids, (0, further)), functional.pad(places, (0, further)))
        for layer in self.layers:
            x = layer.packed(x, groups)  # type: ignore[operator]
        if self.last is not None:
            return self.last.packed(x, groups)
        parts = []
        for first, count, length in groups:
            tokens = x[first : first + count * length].unflatten(0, (count, length))
            parts.append(
                tokens.amax(dim=1).float()
                if self.pooling == "max"
                else tokens.mean(dim=1, dtype=torch.float32)
            )
        return torch.cat(parts)

    def _padded(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.bool()
        seen = None if bool(mask.all()) else mask[:, None, None, :]
        x = self._embedded(input_ids, torch.arange(mask.shape[1], device=mask.device))
        for layer in self.layers:
            x = layer.padded(x, seen)  # type: ignore[operator]
        if self.last is not None:
            return self.last.padded(x, seen)
        return pooled(x, attention_mask, self.pooling or "mean")

    def _embedded(self, ids: Tensor, places: Tensor) -> Tensor:
        found: Tensor = self.project(self.norm(self.words[ids] + self.positions[places]))
        return found


def pooled(hidden: Tensor, attention_mask: Tensor, how: str) -> Tensor:
    """One vector a text, float32 of shape (B, E).

    Args:
        hidden: the tokens' vectors, shape (B, T, E).
        attention_mask: shape (B, T), 0 at padding.
        how: ``'mean'``, ``'cls'`` or ``'max'``.
    """
    hidden = hidden.float()
    if how == "cls":
        return hidden[:, 0]
    if how == "max":
        return hidden.masked_fill(attention_mask[:, :, None] == 0, float("-inf")).amax(dim=1)
    weights = attention_mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
