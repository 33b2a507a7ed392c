from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from thano_assets.errors import UnknownModel
from thano_assets.progress import Progress, Task

from .conftest import Place, Recorded, reviews
from .test_train import run


@pytest.fixture(scope="module")
def model_dir(tiny_electra: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = Place(tmp_path_factory.mktemp("predict"))
    texts, labels = reviews(120)
    return run(place, tiny_electra, texts, labels, Recorded(), max_length=12, epochs=2).model_dir


def test_order_missing_rows_and_sums(model_dir: Path) -> None:
    from thano_assets.learning.predict import Predictor

    predictor = Predictor.load(model_dir)
    texts = ["good film", None, "bad film one two three", "  ", "", "great film four"]
    found = predictor.predict(texts)
    assert found.shape == (6, 2)
    assert found.dtype == np.float32
    assert np.isnan(found).any(axis=1).tolist() == [False, True, False, True, True, False]
    assert np.allclose(np.nansum(found, axis=1)[[0, 2, 5]], 1, atol=1e-5)
    alone = np.concatenate([predictor.predict([texts[row]]) for row in (0, 2, 5)])
    assert np.allclose(found[[0, 2, 5]], alone, atol=2e-2)
    assert (found[[0, 2, 5]].argmax(1) == alone.argmax(1)).all()


def test_texts_are_cut_as_in_training(model_dir: Path) -> None:
    from thano_assets.learning.predict import Predictor

    predictor = Predictor.load(model_dir, precision="fp32")
    assert predictor.max_length == 12
    middle = ["one " * 200, "two " * 200]  # what lies between the kept ends does not count
    long = ["good film " + part + "six seven eight nine ten nine eight seven" for part in middle]
    found = predictor.predict([*long, long[0]])
    assert predictor.truncated == 3
    assert np.allclose(found[0], found[1], atol=1e-6)
    assert np.array_equal(found[0], found[2])


def test_answers_match_plain_transformers(model_dir: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from thano_assets.learning.predict import Predictor

    texts = [text for text, _ in zip(*reviews(30), strict=True)]
    model = AutoModelForSequenceClassification.from_pretrained(model_dir).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    with torch.inference_mode():
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        expected = model(**batch).logits.softmax(-1).numpy()
    assert np.allclose(Predictor.load(model_dir, precision="fp32").predict(texts), expected, atol=1e-5)
    assert np.allclose(Predictor.load(model_dir, precision="bf16").predict(texts), expected, atol=5e-2)


class Counting(Progress, Task):
    def __init__(self) -> None:
        self.done: list[int] = []

    def task(self, label, total=None, unit="rows"):
        from contextlib import nullcontext

        return nullcontext(self)

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        self.done.append(amount)


def test_batches_come_in_turn_and_progress_counts_every_row(model_dir: Path) -> None:
    from thano_assets.learning.predict import Predictor

    predictor = Predictor.load(model_dir)
    texts: list[str | None] = [*reviews(50)[0], None, "good film", "good film"]
    progress = Counting()
    parts = list(predictor.predict_batches([texts[:20], [], texts[20:]], progress))
    assert [len(part) for part in parts] == [20, 0, 33]
    whole = predictor.predict(texts)
    assert np.array_equal(
        np.concatenate(parts).argmax(1)[~np.isnan(whole[:, 0])], whole.argmax(1)[~np.isnan(whole[:, 0])]
    )
    assert sum(progress.done) == 53


def test_a_window_bounds_what_is_held(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thano_assets.learning import predict

    predictor = predict.Predictor.load(model_dir, precision="fp32")
    texts = [f"good film {'one ' * (row % 7)}" for row in range(25)]
    whole = predictor.predict(texts)
    monkeypatch.setattr(predict, "WINDOW", 4)
    assert np.allclose(predictor.predict(texts), whole, atol=1e-6)


def test_cached_models_are_loaded_once_and_again_when_changed(model_dir: Path, tmp_path: Path) -> None:
    import os

    from thano_assets.learning.predict import Predictor

    copy = shutil.copytree(model_dir, tmp_path / "copy")
    first = Predictor.cached(copy)
    assert Predictor.cached(copy) is first
    os.utime(copy / "model.safetensors", ns=(1, 1))
    assert Predictor.cached(copy) is not first


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    from thano_assets.learning.predict import Predictor

    with pytest.raises(UnknownModel, match=r"config\.json is missing"):
        Predictor.load(tmp_path)
