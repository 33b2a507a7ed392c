"""Matrix products of an encoder on a CPU with bias and activation in one pass over the output.

PyTorch's ``linear`` copies the bias into the output and adds the product; GELU reads and writes it once more.
oneDNN does all of it in one kernel, which PyTorch has as the operator that its own compiler uses.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.activations import GELUActivation


class FusedLinear(torch.nn.Module):
    """``activation(x @ weight.T + bias)`` for inference.

    Args:
        linear: whose weights are taken; they are kept in oneDNN's own layout.
        activation: ``'none'`` or ``'gelu'`` (the exact one).
    """

    def __init__(self, linear: torch.nn.Linear, activation: str = "none") -> None:
        super().__init__()
        # Plain attributes: a tensor in oneDNN's layout is no parameter that could be saved or moved.
        self.weight = linear.weight.detach().to_mkldnn()
        self.bias = None if linear.bias is None else linear.bias.detach()
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
    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or not _works():
        return model
    for part in list(model.modules()):
        dense = getattr(part, "dense", None)
        if isinstance(dense, torch.nn.Linear) and _is_exact_gelu(getattr(part, "intermediate_act_fn", None)):
            part.dense = FusedLinear(dense, "gelu")
            part.intermediate_act_fn = torch.nn.Identity()
        for name, child in list(part.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(part, name, FusedLinear(child))
    return model


def _is_exact_gelu(function: object) -> bool:
    if isinstance(function, torch.nn.GELU):
        return function.approximate == "none"
    return isinstance(function, GELUActivation) and function.act is torch.nn.functional.gelu


def _works() -> bool:
    """Whether this build of PyTorch has the operator, and it computes what it should."""
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        layer = torch.nn.Linear(32, 64).to(torch.bfloat16)
        x = torch.randn(4, 8, 32, dtype=torch.bfloat16)
        wanted = layer(x)
        try:
            plain = FusedLinear(layer)(x)
            curved = FusedLinear(layer, "gelu")(x)
        except (RuntimeError, AttributeError, NotImplementedError, TypeError):
            return False
        return bool(
            torch.allclose(plain.float(), wanted.float(), atol=0.02)
            and torch.allclose(curved.float(), torch.nn.functional.gelu(wanted).float(), atol=0.02)
        )
