"""What is trained how fast: parameter groups, the schedule of the rate, the average of the weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .recipes import Recipe

_LAYER = re.compile(r"\.(?:layer|layers|h|block|blocks)\.(\d+)\.")


def depth_of(name: str, base_prefix: str) -> int | None:
    """Where a parameter sits: ``None`` in the head, 0 in the embeddings, k + 1 in encoder layer k.

    Encoder parameters outside of any numbered layer (a pooler, layers that share their weights) count as the
    uppermost layer, here ``-1``.
    """
    if not name.startswith(base_prefix + "."):
        return None
    found = _LAYER.search(name)
    if found:
        return int(found[1]) + 1
    return 0 if "embed" in name else -1


def parameter_groups(model: Any, recipe: Recipe, learning_rate: float) -> list[dict[str, Any]]:
    """AdamW parameter groups with layer-wise decayed rates.

    The uppermost encoder layer learns at ``learning_rate``, each layer below at ``layer_decay`` times the
    rate of the one above, the embeddings below the first layer, the head at ``head_rate`` times
    ``learning_rate`` (Clark et al. 2020, appendix B; Howard & Ruder 2018 for the idea). Matrices decay by
    ``weight_decay``, vectors (biases, norms) do not.
    """
    places = {
        name: depth_of(name, model.base_model_prefix)
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    top = max((place for place in places.values() if place is not None), default=0)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        place = places[name]
        if place is None:
            rate = learning_rate * recipe.head_rate
        else:
            rate = learning_rate * recipe.layer_decay ** (0 if place < 0 else top - place)
        decay = recipe.weight_decay if parameter.dim() >= 2 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def rate_factor(steps: int, recipe: Recipe) -> Callable[[int], float]:
    """Factor of the rate at each step: up to 1 over the warm-up, then down to 0 or level."""
    rising = max(1, round(steps * recipe.warmup))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return max(0.0, (steps - step) / max(1, steps - rising)) if recipe.falling else 1.0

    return factor


_LARGE = 1 << 20  # elements from which an embedding's gradient is worth keeping by its rows


class Gradients:
    """Clipping, and the gradients of large embeddings by the rows that a batch has touched.

    A batch touches some hundred rows of a vocabulary's tens of thousands. Their gradient is the same tensor
    of zeros from step to step, a few rows of it filled and emptied again: the optimiser sees what it always
    saw, and nobody allocates, clears, sums or scales the zeros.

    Args:
        parameters: all that is trained.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._whole: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._filled: list[tuple[torch.Tensor, torch.Tensor]] = []

    @torch.no_grad()
    def clip(self, largest: float) -> None:
        """Scale all gradients so that their common norm is at most ``largest``."""
        values, dense = [], []
        for parameter in self._parameters:
            if parameter.grad is None:
                continue
            if not parameter.grad.is_sparse:
                dense.append(parameter.grad)
                continue
            gradient = parameter.grad.coalesce()
            rows, value = gradient.indices()[0], gradient.values()
            if parameter not in self._whole:
                self._whole[parameter] = torch.zeros_like(parameter)
            whole = self._whole[parameter]
            values.append((whole, rows, value))
            parameter.grad = None  # of another layout than what takes its place
            parameter.grad = whole
        every = dense + [value for _, _, value in values]
        norm = torch.nn.utils.get_total_norm(every)
        # A GPU is not asked for the norm: it would have to be waited for.
        if norm.device.type != "cpu":
            torch._foreach_mul_(every, (largest / (norm + 1e-6)).clamp(max=1.0))
        elif float(norm) > largest:
            torch._foreach_mul_(every, largest / (float(norm) + 1e-6))
        for whole, rows, value in values:
            whole[rows] = value
            self._filled.append((whole, rows))

    @torch.no_grad()
    def clear(self) -> None:
        """Forget the gradients."""
        for whole, rows in self._filled:
            whole[rows] = 0
        self._filled.clear()
        for parameter in self._parameters:
            parameter.grad = None


def add_gradients(parameters: Sequence[torch.nn.Parameter], gradients: Sequence[torch.Tensor | None]) -> None:
    """Add to each parameter's gradient; where there is none as yet, what is added becomes it."""
    sums: list[torch.Tensor] = []
    added: list[torch.Tensor] = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is None:
            parameter.grad = gradient
        elif gradient.is_sparse:
            parameter.grad = parameter.grad + gradient
        else:
            sums.append(parameter.grad)
            added.append(gradient)
    if sums:
        torch._foreach_add_(sums, added)


@contextmanager
def gradients_by_row(model: Any, worthwhile: bool) -> Iterator[None]:
    """Inside the block, where ``worthwhile``, large embeddings of ``model`` have sparse gradients."""
    found = [
        module
        for module in model.modules()
        if worthwhile
        and type(module) is torch.nn.Embedding
        and not module.sparse
        and module.weight.numel() >= _LARGE
        and module.weight.requires_grad
    ]
    for module in found:
        module.sparse = True
    try:
        yield
    finally:
        for module in found:
            module.sparse = False


class WeightAverage:
    """The mean of weights over the last steps (stochastic weight averaging, Izmailov et al. 2018)."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._live = list(parameters)
        self._mean: list[torch.Tensor] = []
        self._count = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights as they are now into the mean."""
        self._count += 1
        if not self._mean:
            self._mean = [parameter.detach().clone() for parameter in self._live]
        else:
            torch._foreach_lerp_(self._mean, [p.detach() for p in self._live], 1 / self._count)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the mean in the place of the weights; nothing happens before the first update."""
        for live, mean in zip(self._live, self._mean, strict=False):
            live.copy_(mean)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"mean": self._mean, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._mean = [tensor.to(live.device) for live, tensor in zip(self._live, state["mean"], strict=False)]
        self._count = state["count"]


class BestWeights:
    """A copy of the weights at their best."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._live = list(parameters)
        self._kept: list[torch.Tensor] = []

    def keep(self) -> None:
        """Remember the weights as they are now."""
        self._kept = [parameter.detach().clone() for parameter in self._live]

    @torch.no_grad()
    def apply(self) -> None:
        """Put the remembered weights back; nothing happens where none were."""
        for live, kept in zip(self._live, self._kept, strict=False):
            live.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"kept": self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._kept = [tensor.to(live.device) for live, tensor in zip(self._live, state["kept"], strict=False)]
