"""Keywords: near the text, unlike each other, and no stop words."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from thano_assets.learning.keywords import KeywordFinder, KeywordSettings, as_json


class Counted:
    """Puts words on axes of their own, so that likeness can be told beforehand; counts what it embeds."""

    axes = ("film", "movie", "plot", "music")

    def __init__(self) -> None:
        self.seen: list[str] = []

    def embed(self, texts: Sequence[str | None]) -> np.ndarray:
        self.seen += [str(text) for text in texts]
        rows = []
        for text in texts:
            words = str(text).split()
            row = np.array([words.count(axis) for axis in self.axes], dtype=np.float32)
            row[0] += 0.9 * row[1]  # a movie is nearly a film
            rows.append(row + 1e-3)
        found = np.stack(rows)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


TEXT = "the film film film movie movie plot of it"


def found(text: str = TEXT, **settings: object) -> list[tuple[str, float]]:
    embedder = Counted()
    finder = KeywordFinder(embedder, KeywordSettings(**settings))  # type: ignore[arg-type]
    return next(finder.keywords([text], embedder.embed([text])))


def test_the_nearest_come_first_and_stop_words_never() -> None:
    told = found(ngram_range=(1, 1), diversity=0.0, top_n=9)
    assert [phrase for phrase, _ in told] == ["film", "movie", "plot"]
    assert [score for _, score in told] == sorted((score for _, score in told), reverse=True)
    assert "the" in [phrase for phrase, _ in found(ngram_range=(1, 1), stopwords=None, top_n=9)]


def test_diversity_takes_what_is_unlike_instead_of_what_is_near() -> None:
    near = found(ngram_range=(1, 1), diversity=0.0, top_n=2)
    apart = found(ngram_range=(1, 1), diversity=0.8, top_n=2)
    assert ([phrase for phrase, _ in near], [phrase for phrase, _ in apart]) == (
        ["film", "movie"],
        ["film", "plot"],
    )


def test_threshold_and_number_bound_what_is_told() -> None:
    assert len(found(top_n=3)) == 3
    assert all(score >= 0.5 for _, score in found(threshold=0.5, top_n=9))
    assert found(threshold=1.0) == []


def test_ngrams_have_as_many_words_as_asked_for() -> None:
    assert {len(phrase.split()) for phrase, _ in found(ngram_range=(2, 3), top_n=20)} == {2, 3}


def test_a_text_of_nothing_but_stop_words_has_none() -> None:
    assert found("it is the of and a") == []


def test_a_phrase_of_several_texts_is_embedded_once() -> None:
    embedder = Counted()
    finder = KeywordFinder(embedder, KeywordSettings(ngram_range=(1, 1)))
    texts = ["film plot", "film music", "plot"]
    vectors = embedder.embed(texts)
    embedder.seen.clear()
    list(finder.keywords(texts, vectors))
    list(finder.keywords(texts, vectors))
    assert sorted(embedder.seen) == ["film", "music", "plot"]


@pytest.mark.parametrize("word", ["café", "영화", 'a "quoted" one'])
def test_json_keeps_every_letter(word: str) -> None:
    told = as_json([(word, 0.5)])
    assert json.loads(told) == [{"keyword": word, "score": 0.5}]
    assert "\\u" not in told
