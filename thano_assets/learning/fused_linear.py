"""Matrix products of an encoder on a CPU with bias and activation in one pass over the output.

PyTorch's ``linear`` copies the bias into the output and adds the product; GELU reads and writes it once more.
oneDNN does all of it in one kernel, which PyTorch has as the operator that its own compiler uses.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch


class FusedLinear(torch.nn.Module):
    """``activation(x @ weight.T + bias)`` for inference.

    Args:
        weight: bfloat16 of shape (outputs, inputs); a copy is kept in oneDNN's own layout.
        bias: shape (outputs,).
        activation: ``'none'`` or ``'gelu'`` (the exact one).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, activation: str = "none") -> None:
        super().__init__()
        # Plain attributes: a tensor in oneDNN's layout is no parameter that could be saved or moved.
        self.weight = weight.detach().to_mkldnn()
        self.bias = None if bias is None else bias.detach()
        self._activation: tuple[str, list[float], str] = (
            activation,
            [],
            "none" if activation == "gelu" else "",
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` of shape (…, inputs) to (…, outputs)."""
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *self._activation)
        return found


def fuse(model: Any) -> Any:
    """Replace the linear layers of a bfloat16 model on a CPU; any other model, and any doubt, is left alone.

    Args:
        model: in evaluation mode; it can only be used for inference afterwards.
    """
    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or not fuses():
        return model
    for part in list(model.modules()):
        dense = getattr(part, "dense", None)
        if isinstance(dense, torch.nn.Linear) and _is_exact_gelu(getattr(part, "intermediate_act_fn", None)):
            part.dense = FusedLinear(dense.weight, dense.bias, "gelu")
            part.intermediate_act_fn = torch.nn.Identity()
        for name, child in list(part.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(part, name, FusedLinear(child.weight, child.bias))
    return model


def _is_exact_gelu(function: object) -> bool:
    from transformers.activations import GELUActivation

    if isinstance(function, torch.nn.GELU):
        return function.approximate == "none"
    return isinstance(function, GELUActivation) and function.act is torch.nn.functional.gelu


def fuses() -> bool:
    """Whether this build of PyTorch has the operator, and it computes what it should."""
    return torch.backends.mkldnn.is_available() and _works(FusedLinear.forward)


@cache
def _works(forward: object) -> bool:
    """Tried once; ``forward`` is what was tried."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        weight, bias, x = (torch.randn(shape).bfloat16() for shape in ((64, 32), (64,), (4, 8, 32)))
        wanted = torch.nn.functional.linear(x, weight / 8, bias)
        try:
            plain = FusedLinear(weight / 8, bias)(x)
            curved = FusedLinear(weight / 8, bias, "gelu")(x)
        except (RuntimeError, AttributeError, NotImplementedError, TypeError):
            return False
        return bool(
            torch.allclose(plain.float(), wanted.float(), atol=0.02, rtol=0.01)
            and torch.allclose(curved.float(), torch.nn.functional.gelu(wanted).float(), atol=0.02, rtol=0.01)
        )
