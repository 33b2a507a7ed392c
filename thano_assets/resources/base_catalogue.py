"""The base models that have a name of their own."""

from __future__ import annotations

from dataclasses import dataclass

from .packaged import E5, MINILM, PackagedEncoder


@dataclass(frozen=True)
class BaseModelInfo:
    """One entry of the catalogue.

    Attributes:
        name: what a statement writes after USING.
        class_name: the Transformers class that is trained.
        hub_id: repository on the Hugging Face hub, ``None`` for what is no neural model.
        hub_aliases: older names of the same repository, as they may lie in a cache.
        encoders: what Python packages have to stand in for the hub, the best first.
        shape: architecture in which its weights serve this name.
        size_mb: download size of the hub's weights.
        purpose: ``'classify'``, ``'embed'`` or ``'table'``.
        description: one line for a person.
        max_length: tokens read by default where the name has a default of its own.
    """

    name: str
    class_name: str
    hub_id: str | None
    description: str
    purpose: str = "classify"
    encoders: tuple[PackagedEncoder, ...] = ()
    shape: str | None = None
    size_mb: int | None = None
    hub_aliases: tuple[str, ...] = ()
    max_length: int | None = None

    @property
    def encoder(self) -> PackagedEncoder | None:
        """The best of :attr:`encoders` that is installed; the best of all where none is."""
        installed = (one for one in self.encoders if one.version() is not None)
        return next(installed, self.encoders[0] if self.encoders else None)


CATALOGUE = (
    BaseModelInfo(
        "ElectraEn",
        "ElectraForSequenceClassification",
        "google/electra-small-discriminator",
        "ELECTRA-Small, English (Clark et al. 2020)",
        encoders=(E5, MINILM),
        shape="electra",
        size_mb=54,
    ),
    BaseModelInfo(
        "ElectraKo",
        "ElectraForSequenceClassification",
        "monologg/koelectra-small-v3-discriminator",
        "KoELECTRA-Small v3, Korean",
        encoders=(E5,),
        shape="electra",
        size_mb=57,
    ),
    BaseModelInfo(
        "BertEn",
        "BertForSequenceClassification",
        "google-bert/bert-base-cased",
        "BERT-Base cased, English (Devlin et al. 2019); train='head' trains on frozen embeddings",
        encoders=(E5, MINILM),
        shape="bert",
        size_mb=436,
        hub_aliases=("bert-base-cased",),
        max_length=64,
    ),
    BaseModelInfo(
        "AlbertEn",
        "AlbertForSequenceClassification",
        "albert/albert-base-v2",
        "ALBERT-Base v2, English (Lan et al. 2020)",
        size_mb=47,
        hub_aliases=("albert-base-v2",),
    ),
    BaseModelInfo(
        "AlbertKo",
        "AlbertForSequenceClassification",
        "kykim/albert-kor-base",
        "ALBERT-Base, Korean",
        size_mb=52,
    ),
    BaseModelInfo(
        "SBERTEn",
        "BertModel",
        "sentence-transformers/all-MiniLM-L6-v2",
        "Sentence embeddings, English; for CONVERT and SEARCH, not a classifier",
        purpose="embed",
        encoders=(MINILM,),
        shape="bert",
        size_mb=91,
    ),
    BaseModelInfo(
        "SBERTKo",
        "BertModel",
        "snunlp/KR-SBERT-V40K-klueNLI-augSTS",
        "Sentence embeddings, Korean; for CONVERT and SEARCH, not a classifier",
        purpose="embed",
        encoders=(E5,),
        shape="bert",
        size_mb=467,
    ),
    BaseModelInfo(
        "AutomlClassifier",
        "LightGBM, forests, logistic regression",
        None,
        "Finds the best classifier of a table's columns (Optuna over LightGBM and scikit-learn)",
        purpose="table",
    ),
    BaseModelInfo(
        "AutomlRegressor",
        "LightGBM, forests, ridge regression",
        None,
        "Finds the best regression on a table's columns (Optuna over LightGBM and scikit-learn)",
        purpose="table",
    ),
)


def catalogue() -> list[BaseModelInfo]:
    """The base models that have a name of their own, in the order in which they are listed."""
    return list(CATALOGUE)
