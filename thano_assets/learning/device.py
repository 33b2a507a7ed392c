"""Where and how precisely tensors are computed: asked of the libraries, never written down."""

from __future__ import annotations

from typing import Any

import torch


def device() -> torch.device:
    """The device that Accelerate chooses here (its settings and environment variables count)."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")  # there is nothing to choose, and importing Accelerate takes a while
    from accelerate import PartialState

    return PartialState().device


def describe(place: torch.device) -> str:
    """The device as words: ``cpu (2 threads)``, ``cuda (NVIDIA …)``, ``mps``."""
    if place.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    if place.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(place)})"
    return place.type


def precision(place: torch.device) -> str:
    """``'bf16'`` where the hardware multiplies bfloat16 matrices faster than float32, else ``'fp32'``."""
    if place.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if place.type == "cpu":
        return (
            "bf16" if _cpu_has("_is_amx_tile_supported") or _cpu_has("_is_avx512_bf16_supported") else "fp32"
        )
    return "fp32"


def autocast(place: torch.device, how: str) -> torch.autocast:
    """A context in which matrix products are computed with the precision ``how`` (``'bf16'`` or ``'fp32'``).

    Our own rather than an Accelerator's: the precision of an Accelerator is one for the whole process, and
    another library of the process may have chosen it before.
    """
    return torch.autocast(place.type, dtype=torch.bfloat16, enabled=how == "bf16")


def _cpu_has(question: str) -> bool:
    ask: Any = getattr(torch.cpu, question, None)
    return bool(ask and ask())
