"""Keywords of a text: its words and phrases whose vectors lie nearest to that of the whole text.

After KeyBERT (Grootendorst 2020): candidates are the text's n-grams, scored by the cosine of their vector
with the text's; maximal marginal relevance (Carbonell and Goldstein 1998) then trades nearness for variety.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

MOST_CANDIDATES = 1000  # of one text; of a longer one, those that occur most often
_REMEMBERED = 20_000  # vectors of phrases held for the next texts, some 30 MB
#: Languages with a list of stop words.
STOPWORD_LANGUAGES = ("en",)


class Embeds(Protocol):
    """As much of an embedder as is needed here."""

    def embed(self, texts: Sequence[str | None]) -> np.ndarray:
        """Vectors of length 1, float32 of shape (N, size)."""


@dataclass(frozen=True)
class KeywordSettings:
    """What a person may choose.

    Attributes:
        ngram_range: fewest and most words of a keyword.
        top_n: keywords of a text; ``None`` for all.
        diversity: 0 takes the nearest, 1 the most unlike each other.
        stopwords: ``'en'`` leaves scikit-learn's list of English stop words out; ``None`` leaves out none.
        threshold: least score.
    """

    ngram_range: tuple[int, int] = (1, 2)
    top_n: int | None = 5
    diversity: float = 0.5
    stopwords: str | None = "en"
    threshold: float = 0.0


class KeywordFinder:
    """Finds keywords with an embedder; remembers the vectors of phrases that it met lately.

    Args:
        embedder: makes the vectors.
        settings: see :class:`KeywordSettings`.
    """

    def __init__(self, embedder: Embeds, settings: KeywordSettings) -> None:
        self._embedder = embedder
        self._settings = settings
        self._known: dict[str, np.ndarray] = {}

    def keywords(self, texts: Sequence[str], vectors: np.ndarray) -> Iterator[list[tuple[str, float]]]:
        """Keywords with scores of each text, the nearest first.

        Args:
            texts: some hundred at most, none of them blank: their phrases are embedded together.
            vectors: of the texts, of length 1, shape (N, size).
        """
        candidates = [self._candidates(text) for text in texts]
        self._learn({phrase for phrases in candidates for phrase in phrases})
        for phrases, vector in zip(candidates, vectors, strict=True):
            if not phrases:
                yield []
                continue
            near = np.stack([self._known[phrase] for phrase in phrases])
            yield self._chosen(phrases, near, vector)

    def _candidates(self, text: str) -> list[str]:
        from sklearn.feature_extraction.text import CountVectorizer

        counter = CountVectorizer(
            ngram_range=self._settings.ngram_range,
            stop_words={"en": "english", None: None}[self._settings.stopwords],
            max_features=MOST_CANDIDATES,
        )
        try:
            return [str(phrase) for phrase in counter.fit([text]).get_feature_names_out()]
        except ValueError:  # nothing but stop words and single letters
            return []

    def _learn(self, phrases: set[str]) -> None:
        if len(self._known) > _REMEMBERED:
            self._known = {phrase: self._known[phrase] for phrase in phrases & self._known.keys()}
        new = sorted(phrases - self._known.keys())
        if new:
            self._known.update(zip(new, self._embedder.embed(new), strict=True))

    def _chosen(self, phrases: list[str], near: np.ndarray, text: np.ndarray) -> list[tuple[str, float]]:
        """Maximal marginal relevance: each next keyword is near the text and unlike those before."""
        settings = self._settings
        scores = near @ text
        left = np.flatnonzero(scores >= settings.threshold)
        if not len(left):
            return []
        chosen = [int(left[np.argmax(scores[left])])]
        likeness = near @ near[chosen[0]]  # of each candidate, with the chosen one that is most like it
        while len(chosen) < min(settings.top_n or len(left), len(left)):
            worth = (1 - settings.diversity) * scores - settings.diversity * likeness
            worth[chosen] = -np.inf
            best = int(left[np.argmax(worth[left])])
            chosen.append(best)
            likeness = np.maximum(likeness, near @ near[best])
        found = [(phrases[place], round(float(scores[place]), 4)) for place in chosen]
        return sorted(found, key=lambda one: -one[1])


def as_json(found: list[tuple[str, float]]) -> str:
    """Keywords as JSON: a list of objects with ``keyword`` and ``score``."""
    listed: list[dict[str, Any]] = [{"keyword": phrase, "score": score} for phrase, score in found]
    return json.dumps(listed, ensure_ascii=False)
