"""Names of base models: those that make embeddings, and those of other media, which are refused."""

from __future__ import annotations

import re

#: Base models that CONVERT and SEARCH know by name; no model of the registry goes by these names there.
EMBEDDING_BASES = ("SBERTEn", "SBERTKo")

# Families of ThanoSQL's image, audio, video and time-series base models and their common relatives.
_MEDIA = re.compile(
    r"(?:convnext|efficientnet|mobilenet|resnet|simclr|swav|clip|blip|unet|yolo|vit|swin|"
    r"wav2vec2?|whisper|hubert|videomae|timesformer|"
    r"automl(?:time_?series|forecast)\w*|prophet|arima)(?:[_0-9]*v?\d*(?:tiny|small|base|large|xl|[smlb]\d?)?)?"
    r"(?:en|ko|image|audio|video)?",
    re.IGNORECASE,
)


def is_embedding_base(name: str, quoted: bool) -> bool:
    """Whether ``name`` after USING of CONVERT or SEARCH means a base model, not one of the registry.

    Args:
        name: as it was written; a repository of the hub or a folder has a ``/``, no registered model has.
        quoted: whether it stood in quotes.
    """
    return name in EMBEDDING_BASES or (quoted and ("/" in name or name in (".", "..")))


def is_media_base(name: str) -> bool:
    """Whether ``name`` is a base model for images, audio, video or time series."""
    return _MEDIA.fullmatch(name) is not None
