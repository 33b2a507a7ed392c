"""A training that was killed goes on where it was: what is kept, and when it may be used again."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from .process_group import ProcessGroup

_STATE = "loop.json"
_CODE = 1  # raised when a checkpoint of the code before can no longer be gone on from


def training_identity(texts: Sequence[str], labels: Sequence[str], facts: Iterable[object]) -> str:
    """SHA-256 of everything that decides the course of a training."""
    whole = hashlib.sha256(repr([_CODE, *facts]).encode())
    for text, label in zip(texts, labels, strict=True):
        for value in (text, label):
            data = value.encode()
            whole.update(len(data).to_bytes(8, "little"))
            whole.update(data)
    return whole.hexdigest()


class Checkpoints:
    """The latest state of one training in a folder of its own.

    A state appears complete or not at all: it is written beside the one before and then renamed.

    Args:
        folder: where to keep it; ``None`` keeps nothing.
        identity: of the training; a state of another training is not used, and removed.
        seconds: least time between two states, the ends of epochs aside.
    """

    def __init__(self, folder: Path | None, identity: str, seconds: float = 120.0) -> None:
        self._folder = folder
        self._identity = identity
        self._seconds = seconds
        self._last = time.monotonic()

    @property
    def _current(self) -> Path:
        assert self._folder is not None
        return self._folder / "latest"

    def restore(self, accelerator: Accelerator) -> dict[str, Any] | None:
        """Load the kept state into the accelerator's objects; the loop's own values, or ``None``."""
        if self._folder is None:
            return None
        if not self._current.is_dir():
            retired = self._folder / "before"
            if not retired.is_dir():  # killed between the two renames of save()
                return None
            retired.rename(self._current)
        try:
            state = json.loads((self._current / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            state = {}
        if state.get("identity") != self._identity:
            self.clear()
            return None
        accelerator.load_state(str(self._current))
        values: dict[str, Any] = state["values"]
        return values

    def save(
        self,
        accelerator: Accelerator,
        group: ProcessGroup,
        values: Callable[[], dict[str, Any]],
        *,
        now: bool = False,
    ) -> None:
        """Keep the state if enough time has gone by since the last one, or ``now``; all processes call it.

        ``values`` gives the loop's own; it is asked where the state is kept, in all processes.
        """
        if self._folder is None:
            return
        due = now or time.monotonic() - self._last >= self._seconds
        if not group.decided(due):
            return
        own = values()
        temporary, retired = self._folder / "writing", self._folder / "before"
        if group.leads:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        group.wait()
        accelerator.save_state(str(temporary))
        group.wait()
        self._last = time.monotonic()
        if not group.leads:
            return
        (temporary / _STATE).write_text(
            json.dumps({"identity": self._identity, "values": own}), encoding="utf-8"
        )
        if self._current.is_dir():
            shutil.rmtree(retired, ignore_errors=True)
            self._current.rename(retired)
        temporary.rename(self._current)
        shutil.rmtree(retired, ignore_errors=True)

    def clear(self) -> None:
        """Remove what is kept."""
        if self._folder is not None:
            for name in ("latest", "before", "writing"):
                shutil.rmtree(self._folder / name, ignore_errors=True)
