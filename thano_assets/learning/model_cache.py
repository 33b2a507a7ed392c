"""Models kept loaded between the statements of one process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

_KEPT = 2  # models of one kind kept loaded in a process


class ModelCache(Generic[T]):
    """The models of one kind that were used last; one whose weights have changed is loaded again."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[object, ...], T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, kind: type, model_dir: Path, load: Callable[[Path], T]) -> T:
        """The model of ``model_dir``, from ``load`` where it is not at hand.

        Args:
            kind: the class that is asked for; subclasses do not share their models.
            model_dir: the model's folder.
            load: makes the model.
        """
        names = ("model.safetensors", "model.skops")
        weights = [path for name in names if (path := Path(model_dir) / name).is_file()]
        time_ns = weights[0].stat().st_mtime_ns if weights else 0
        key = (kind, str(Path(model_dir).resolve()), time_ns)
        with self._lock:
            if key not in self._models:
                self._models[key] = load(model_dir)
                while len(self._models) > _KEPT:
                    self._models.popitem(last=False)
            self._models.move_to_end(key)
            return self._models[key]
