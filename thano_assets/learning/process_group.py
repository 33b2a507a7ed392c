"""What processes that train one model tell each other; with one process nothing is told.

Each process has all rows and all weights, computes the gradient of its part of every batch, and the parts are
added up before the step: synchronous data parallelism (Goyal et al. 2017, section 2.3). Not by torch's
DistributedDataParallel, which averages over processes as if all had as many rows: the last batch of an epoch
has fewer rows than others, weights of classes make rows count differently, and a batch may have fewer rows
than there are processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator

_BUCKET = 1 << 24  # elements exchanged at once: 64 MB of float32


class ProcessGroup:
    """The processes of one training, as this one sees them.

    Args:
        accelerator: knows how many there are and how they are reached.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.size: int = accelerator.num_processes
        self.rank: int = accelerator.process_index
        self._touched: torch.Tensor | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def describe(self, place: str) -> str:
        """The processes' devices in words: ``place``, or how many of it."""
        return place if self.size == 1 else f"{self.size} processes, {place} each"

    def share(self, rows: np.ndarray) -> np.ndarray:
        """The part of ``rows`` that is this process's; neighbours, alike in length, go to different ones."""
        return rows[self.rank :: self.size]

    def same_weights(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Give every process the first one's weights."""
        if self.size == 1:
            return
        for parameter in parameters:
            torch.distributed.broadcast(parameter.data, 0)

    @torch.no_grad()
    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace the gradient of each parameter by its sum over the processes; all must call it."""
        if self.size == 1:
            return
        place = parameters[0].device
        if self._touched is None:
            # A process whose part of the first batch was empty has no gradients yet.
            touched = [parameter.grad is not None for parameter in parameters]
            self._touched = torch.tensor(touched, dtype=torch.int32, device=place)
            torch.distributed.all_reduce(self._touched, torch.distributed.ReduceOp.MAX)
        bucket: list[torch.Tensor] = []
        for parameter, touched in zip(parameters, self._touched.tolist(), strict=True):
            if not touched:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(gradient.numel() for gradient in bucket) >= _BUCKET:
                _add(bucket)
                bucket = []
        if bucket:
            _add(bucket)

    def add(self, values: np.ndarray) -> np.ndarray:
        """The sum of ``values`` over the processes; all must call it, with the same shape."""
        if self.size == 1:
            return values
        tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(self._accelerator.device)
        torch.distributed.all_reduce(tensor)
        return tensor.cpu().numpy()

    def decided(self, wanted: bool) -> bool:
        """What the first process wants; all must call it."""
        if self.size == 1:
            return wanted
        return bool(self.add(np.array([float(wanted and self.leads)]))[0])

    def wait(self) -> None:
        """Until every process is here."""
        self._accelerator.wait_for_everyone()


def _add(gradients: list[torch.Tensor]) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    torch.distributed.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
