"""Names of base models of other media, which are recognised and refused."""

from __future__ import annotations

import re

# Families of ThanoSQL's image, audio, video and time-series base models and their common relatives.
_MEDIA = re.compile(
    r"(?:convnext|efficientnet|mobilenet|resnet|simclr|swav|clip|blip|unet|yolo|vit|swin|"
    r"wav2vec2?|whisper|hubert|videomae|timesformer|"
    r"automl(?:time_?series|forecast)\w*|prophet|arima)(?:[_0-9]*v?\d*(?:tiny|small|base|large|xl|[smlb]\d?)?)?"
    r"(?:en|ko|image|audio|video)?",
    re.IGNORECASE,
)


def is_media_base(name: str) -> bool:
    """Whether ``name`` is a base model for images, audio, video or time series."""
    return _MEDIA.fullmatch(name) is not None
