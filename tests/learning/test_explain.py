"""Words and their weights: they add up, they are whole words, and they are the ones that matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from thano_assets.errors import UnsupportedStatement
from thano_assets.learning.explain import Explainer, _by_word, _joined

from .conftest import make_tiny


@pytest.fixture(scope="module")
def explainer(make_classifier: Callable[..., Path]) -> Explainer:
    found = Explainer.load(make_classifier(("no", "so", "yes"), positions=12))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for weights in found._model.parameters():
            weights.normal_(std=0.5) if weights.ndim == 2 else None
    return found


TEXTS = ["a", "a b c", "q w e r t y u i o p a s d f", "hello there x"]


def explained(
    explainer: Explainer, texts: list[str], labels: list[int], top_k: int = 100
) -> list[list[tuple[str, float]]]:
    return [one.words for found in explainer.explain_batches([(texts, labels)], top_k) for one in found]


def test_all_words_weights_add_up_to_what_the_text_changes(explainer: Explainer) -> None:
    (found,) = explainer.explain_batches([(TEXTS, [0, 1, 2, 1])], 100)
    for one in found:
        assert one.complete
        total = sum(weight for _, weight in one.words)
        assert total == pytest.approx(one.difference, abs=max(0.05 * abs(one.difference), 0.05) + 0.01)


def test_the_difference_is_that_of_the_log_odds_to_an_empty_text(explainer: Explainer) -> None:
    (found,) = explainer.explain_batches([(["b c"], [2])], 5)
    tokenizer = explainer._encoder.tokenizer
    ids = torch.tensor([tokenizer("b c")["input_ids"]])
    alone = torch.ones_like(ids)
    alone[0, 1:-1] = 0  # nobody attends to the words
    odds = []
    for mask in (torch.ones_like(ids), alone):
        p = torch.softmax(explainer._model(input_ids=ids, attention_mask=mask).logits.detach()[0], 0)
        odds.append(float(torch.log(p[2] / (1 - p[2]))))
    assert found[0].difference == pytest.approx(odds[0] - odds[1], abs=0.05)


def test_weights_for_one_of_two_labels_are_those_against_the_other(
    make_classifier: Callable[..., Path],
) -> None:
    two = Explainer.load(make_classifier(("no", "yes")))
    with torch.no_grad():
        for weights in two._model.parameters():
            weights.mul_(30) if weights.ndim == 2 else None
    against, toward = dict(explained(two, ["a b"], [0])[0]), dict(explained(two, ["a b"], [1])[0])
    assert set(against) == set(toward) == {"a", "b"}
    assert [against[word] for word in "ab"] == pytest.approx([-toward[word] for word in "ab"], abs=0.02)


def test_weights_are_those_of_the_library_over_the_whole_way(explainer: Explainer) -> None:
    from captum.attr import IntegratedGradients

    text, label = "q w e r t y", 2
    model, tokenizer = explainer._model, explainer._encoder.tokenizer
    ids = torch.tensor([tokenizer(text)["input_ids"]])

    def log_odds(shares: torch.Tensor) -> torch.Tensor:
        whole = torch.cat([torch.ones(len(shares), 1), shares, torch.ones(len(shares), 1)], dim=1)
        bias = whole.clamp_min(1e-9).log()[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        logits = model(input_ids=ids.expand(len(shares), -1), attention_mask=bias).logits
        return logits[:, label] - logits[:, [0, 1]].logsumexp(dim=1)

    words = torch.ones(1, ids.shape[1] - 2)
    told = IntegratedGradients(log_odds).attribute(words, baselines=torch.zeros_like(words), n_steps=512)[0]
    found = dict(explained(explainer, [text], [label])[0])
    wanted = dict(zip(text.split(), told.tolist(), strict=True))
    whole = sum(abs(weight) for weight in wanted.values())
    assert [found.get(word, 0.0) for word in wanted] == pytest.approx(list(wanted.values()), abs=0.04 * whole)


def test_a_cut_text_is_explained_by_the_words_that_were_read(explainer: Explainer) -> None:
    words = {word for word, _ in explained(explainer, ["q w e r t y u i o p a s d f"], [0])[0]}
    assert words <= set("qwertyuiop")
    explainer._encoder.head, explainer._encoder.tail, before = (
        4,
        6,
        (explainer._encoder.head, explainer._encoder.tail),
    )
    try:
        words = {word for word, _ in explained(explainer, ["q w e r t y u i o p a s d f"], [0])[0]}
        assert words <= set("qweropasdf")
        assert words & set("asdf")
    finally:
        explainer._encoder.head, explainer._encoder.tail = before


def test_top_k_keeps_the_strongest_in_order(explainer: Explainer) -> None:
    everything = explained(explainer, ["q w e r t"], [1])[0]
    assert explained(explainer, ["q w e r t"], [1], top_k=2)[0] == everything[:2]
    assert [abs(weight) for _, weight in everything] == sorted((abs(w) for _, w in everything), reverse=True)


def test_company_and_order_change_nothing(explainer: Explainer) -> None:
    alone = [explained(explainer, [text], [1])[0] for text in TEXTS]
    together = explained(explainer, TEXTS[::-1], [1] * 4)[::-1]
    for one, other in zip(alone, together, strict=True):
        assert dict(one).keys() == dict(other).keys()
        assert list(dict(one).values()) == pytest.approx([dict(other)[word] for word, _ in one], abs=0.02)


def test_pieces_of_a_word_are_one_word_and_so_are_contractions() -> None:
    text = "It wasn't a so-so film, 'really'"
    spans = [
        (0, 2),
        (3, 7),
        (7, 8),
        (8, 9),
        (10, 11),
        (12, 14),
        (14, 15),
        (15, 17),
        (18, 20),
        (20, 22),
        (22, 23),
        (24, 25),
        (25, 31),
        (31, 32),
    ]
    numbers = [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12]
    pieces = _joined(text, [(None, (0, 0)), *zip(numbers, spans, strict=True), (None, (0, 0))])
    assert [word for _, word in pieces] == [
        "",
        "It",
        *["wasn't"] * 3,
        "a",
        *["so-so"] * 3,
        "film",
        "film",
        ",",
        "'",
        "really",
        "'",
        "",
    ]


def test_a_word_that_comes_twice_is_told_once() -> None:
    found = _by_word(
        [(-1, ""), (0, "Bad"), (1, "so"), (2, "bad"), (-1, "")], np.array([9.0, 1.0, -0.5, 0.25, 9.0])
    )
    assert found == [("Bad", 1.25), ("so", -0.5)]


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_models_of_other_kinds_add_up_too(tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = make_tiny(tmp_path / kind, kind)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(folder)
    model = Explainer.load(folder)
    (found,) = model.explain_batches([(["good film the plot", "very bad"], [0, 1])], 3)
    assert all(one.complete and one.words for one in found)


def test_models_whose_attention_takes_no_shares_are_explained_by_their_vectors(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert explainer._takes_shares
    monkeypatch.setattr(explainer, "_takes_shares", False)
    (found,) = explainer.explain_batches([(TEXTS, [0, 1, 2, 1])], 100)
    assert all(one.complete and one.words for one in found)


def test_a_model_that_also_writes_is_refused(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explainer._model.config, "is_encoder_decoder", True, raising=False)
    with pytest.raises(UnsupportedStatement, match="reads and writes"):
        next(explainer.explain_batches([(["a"], [0])], 3))


def test_what_decides_about_a_review_is_what_a_person_would_name(tmp_path: Path) -> None:
    from thano_assets.resources.base_models import materialize_prebuilt

    prebuilt = materialize_prebuilt(tmp_path / "model")
    found = Explainer.load(prebuilt.model_dir)
    texts = [
        "This film was boring and a waste of time.",
        "A wonderful, touching story; I loved every minute of it!",
    ]
    labels = [int(place) for place in found.predict(texts).argmax(axis=1)]
    assert [found.classes[place] for place in labels] == ["negative", "positive"]
    bad, good = explained(found, texts, labels, top_k=3)
    assert bad[0][0] == "boring"
    assert bad[0][1] > 1
    assert good[0][0] == "wonderful"
    assert "loved" in dict(good)
