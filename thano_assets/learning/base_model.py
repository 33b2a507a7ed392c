"""What a training asks of the base model that it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..progress import Progress


class BaseModel(Protocol):
    """A base model of which the weights are certain; see :class:`.ResolvedBase`."""

    @property
    def name(self) -> str:
        """What the statement said."""

    @property
    def max_length(self) -> int | None:
        """Tokens read by default, where the base has a default of its own."""

    @property
    def identity(self) -> str:
        """The same for the same weights in the same shape."""

    def describe(self) -> str:
        """One line that says what is used and where it is from."""

    def folder(self, progress: Progress) -> Path:
        """The Hugging Face folder; downloads or converts first."""

    def fetched(self, progress: Progress) -> BaseModel:
        """The same with its folder on this machine, fit to be pickled."""
