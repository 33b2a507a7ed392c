"""Names of base models: the catalogue's, of embeddings, of tables, and those of other media, refused."""

from __future__ import annotations

import re

#: Names of the catalogue (:func:`thano_assets.resources.base_models.catalogue`); after USING of BUILD MODEL
#: they never mean a model that was built here.
CATALOGUE_NAMES = (
    "ElectraEn",
    "ElectraKo",
    "BertEn",
    "AlbertEn",
    "AlbertKo",
    "SBERTEn",
    "SBERTKo",
    "AutomlClassifier",
    "AutomlRegressor",
)

#: Base models that CONVERT and SEARCH know by name; no model of the registry goes by these names there.
EMBEDDING_BASES = ("SBERTEn", "SBERTKo", "BertEn")

#: Base models that learn from the columns of a table, and what they predict.
TABLE_BASES = {"AutomlClassifier": "classification", "AutomlRegressor": "regression"}

# Families of ThanoSQL's image, audio, video and time-series base models and their common relatives.
_MEDIA = re.compile(
    r"(?:convnext|efficientnet|mobilenet|resnet|simclr|swav|clip|blip|unet|yolo|vit|swin|"
    r"wav2vec2?|whisper|hubert|videomae|timesformer|"
    r"automl(?:time_?series|forecast)\w*|prophet|arima)(?:[_0-9]*v?\d*(?:tiny|small|base|large|xl|[smlb]\d?)?)?"
    r"(?:en|ko|image|audio|video)?",
    re.IGNORECASE,
)

# More of them, which canonical texts do not put into quotes: what stands in a catalog already keeps its text.
_MORE_MEDIA = re.compile(
    r"tutorial_vilt|vilt\w*|x[-_]?clip\w*|tft|temporal_?fusion_?transformer|mobilevit\w*|"
    r"efficient(?:net)?_?v2[_-]?[smlb]?\d*|convnext\w*|deepar|n-?beats(?:x)?|n-?hits|informer|autoformer|patchtst|tide",
    re.IGNORECASE,
)


def is_embedding_base(name: str, quoted: bool) -> bool:
    """Whether ``name`` after USING of CONVERT or SEARCH means a base model, not one of the registry.

    Args:
        name: as it was written; a repository of the hub or a folder has a ``/``, no registered model has.
        quoted: whether it stood in quotes.
    """
    return name in EMBEDDING_BASES or (quoted and ("/" in name or name in (".", "..")))


def may_be_own_base(name: str, quoted: bool) -> bool:
    """Whether ``name`` after USING of BUILD MODEL may mean a base model that was built here.

    Args:
        name: as it was written.
        quoted: whether it stood in quotes; a folder or repository of the hub may have the name then.
    """
    return "/" not in name if quoted else name not in CATALOGUE_NAMES


def build_kind(base: str) -> str:
    """The key of ``OPTION_SPECS`` for BUILD MODEL with this base; bases of tables have their own options."""
    return f"BUILD MODEL USING {base}" if base in TABLE_BASES else "BUILD MODEL"


def is_media_base(name: str) -> bool:
    """Whether ``name`` is a base model for images, audio, video or time series that texts put into quotes."""
    return _MEDIA.fullmatch(name) is not None


def is_media_model(name: str) -> bool:
    """Whether ``name`` is any model for images, audio, video or time series."""
    return is_media_base(name) or _MORE_MEDIA.fullmatch(name) is not None
