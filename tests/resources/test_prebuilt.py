from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from thano_assets.errors import BaseModelUnavailable
from thano_assets.resources import datasets, prebuilt
from thano_assets.resources.base_models import materialize_prebuilt


@pytest.fixture(scope="module")
def full_split():
    return datasets.load_split("full")


def test_it_was_trained_on_rows_of_the_training_split_only(full_split) -> None:
    card = prebuilt.card()
    rows = full_split[0].slice(0, card["training_rows"])
    assert card["training_fingerprint"] == datasets.rows_fingerprint(rows)


def test_no_test_row_is_among_its_training_rows(full_split) -> None:
    train, test = full_split
    seen = {datasets.text_key(text) for text in train["review"].to_pylist()}
    asked = {datasets.text_key(text) for text in test["review"].to_pylist()}
    tutorial = {datasets.text_key(text) for text in datasets.load_split("tutorial")[1]["review"].to_pylist()}
    assert len(asked) == 5000
    assert tutorial < asked
    assert not seen & asked


def test_it_is_small_and_carries_its_figures() -> None:
    assert prebuilt.FILE.stat().st_size < 3_000_000
    figures = prebuilt.card()["figures"]
    assert figures["shipped_tutorial"]["accuracy"] > figures["before_packing"]["accuracy"] - 0.015
    text = prebuilt.FILE.with_name("README.md").read_text(encoding="utf-8")
    for part in ("shipped", "shipped_tutorial"):
        assert f"{figures[part]['accuracy']:.3f}" in text
    assert prebuilt.card()["training_fingerprint"] in text


def test_it_answers_on_a_closed_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thano_assets.learning.predict import Predictor

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = materialize_prebuilt(tmp_path / "model")
    assert found.classes == ["negative", "positive"]
    predictor = Predictor.load(found.model_dir)
    assert predictor.classes == found.classes
    assert predictor.max_length == found.max_length
    rows = datasets.load_split("tutorial")[1].slice(0, 64)
    answers = predictor.predict(rows["review"].to_pylist()).argmax(axis=1)
    right = [
        found.classes[answer] == label
        for answer, label in zip(answers, rows["sentiment"].to_pylist(), strict=True)
    ]
    assert np.mean(right) > 0.8  # 64 rows: three standard deviations below what the card says


def test_other_base_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prebuilt, "file_digest", lambda path: "0" * 64)
    with pytest.raises(BaseModelUnavailable, match="others are installed"):
        materialize_prebuilt(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_packing_keeps_what_its_budget_allows() -> None:
    rng = np.random.default_rng(0)
    base = {
        "a": rng.normal(size=(40, 30)).astype(np.float32),
        "b": rng.normal(size=30).astype(np.float32),
        "same": rng.normal(size=(20, 20)).astype(np.float32),
    }
    thin = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 30)) * 0.01
    trained = {
        "a": (base["a"] + thin).astype(np.float32),
        "b": base["b"] + 0.5,
        "same": base["same"],
        "head": rng.normal(size=(2, 30)).astype(np.float32),
    }
    exact = 2 * (3 * 70 + 30 + 60)  # three pairs of vectors, a difference of a vector, the head
    packed = prebuilt.pack(base, trained, exact)
    assert packed["a:left"].shape == (40, 3)
    assert sum(value.nbytes for value in packed.values()) == exact
    again = prebuilt.unpack(base, packed)
    assert set(again) == set(trained)
    for name, value in trained.items():
        assert np.allclose(again[name], value, atol=2e-3), name
    rough = prebuilt.unpack(base, prebuilt.pack(base, trained, exact - 2 * 70))
    assert 1e-3 < np.abs(rough["a"] - trained["a"]).max() < np.abs(thin).max()


def test_the_card_is_plain_json() -> None:
    assert json.loads(json.dumps(prebuilt.card())) == prebuilt.card()
