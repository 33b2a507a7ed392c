"""Texts to vectors: pooled as the model's makers pool, whatever else is in the batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from thano_assets.errors import UnknownModel, UnsupportedStatement
from thano_assets.learning.embed import Embedder, pooling_of, prompt_of

from .conftest import make_tiny, reviews


def by_hand(folder: Path, text: str, pooling: str) -> np.ndarray:
    """The vector of one text, computed with Transformers alone."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    pooled = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.amax(0)}[pooling]
    return (pooled / pooled.norm()).numpy()


def pools_by(folder: Path, target: Path, **settings: object) -> Path:
    """A copy of a model's folder with the files of Sentence Transformers beside it."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).hardlink_to(file)
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (target / "modules.json").write_text(json.dumps(modules))
    (target / "1_Pooling").mkdir()
    (target / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return target


@pytest.mark.parametrize(
    ("setting", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode": "max"}, "max"),
    ],
)
def test_vectors_are_those_of_the_model_pooled_as_it_says(
    tiny_bert: Path, tmp_path: Path, setting: dict[str, object], pooling: str
) -> None:
    folder = pools_by(tiny_bert, tmp_path / "model", **setting)
    texts = reviews(9)[0]  # of many lengths: most are padded
    found = Embedder.load(folder, precision="fp32").embed(texts)
    wanted = np.stack([by_hand(folder, text, pooling) for text in texts])
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_classifier_is_pooled_by_the_mean_of_its_encoder(classifier: Path) -> None:
    found = Embedder.load(classifier, precision="fp32").embed(["good film"])
    np.testing.assert_allclose(found[0], by_hand(classifier, "good film", "mean"), atol=2e-6)


def test_bf16_stays_near_fp32(tiny_bert: Path) -> None:
    texts = reviews(40)[0]
    exact = Embedder.load(tiny_bert, precision="fp32").embed(texts)
    quick = Embedder.load(tiny_bert, precision="bf16").embed(texts)
    assert (exact * quick).sum(axis=1).min() >= 0.999


def test_the_same_text_has_the_same_vector_and_is_read_once(tiny_bert: Path) -> None:
    embedder = Embedder.load(tiny_bert, precision="fp32")
    rows: list[int] = []
    embedder._model.register_forward_pre_hook(
        lambda _, given, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    found = embedder.embed(["good film", "bad film", "good film", None, "  ", "good film"])
    assert sum(rows) == 2
    assert (found[0] == found[2]).all()
    assert (found[0] == found[5]).all()
    assert np.isnan(found[3:5]).all()
    assert not np.isnan(found[[0, 1]]).any()


def test_batch_size_bounds_what_the_model_reads_at_a_time(tiny_bert: Path) -> None:
    embedder = Embedder.load(tiny_bert, precision="fp32")
    texts = list(dict.fromkeys(reviews(60)[0]))
    rows: list[int] = []
    embedder._model.register_forward_pre_hook(
        lambda _, given, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    [(_, cut)] = embedder.answer_batches([texts], batch_size=4)
    assert sum(rows) == len(texts)
    assert max(rows) == 4
    assert not cut.any()


def test_long_texts_are_cut_at_the_limit_of_sentence_transformers_and_counted(
    tiny_bert: Path, tmp_path: Path
) -> None:
    folder = pools_by(tiny_bert, tmp_path / "model", pooling_mode_mean_tokens=True)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 6, "do_lower_case": true}')
    embedder = Embedder.load(folder, precision="fp32")
    [(found, cut)] = embedder.answer_batches([["GOOD film was very fine", "good film was very bad", "good"]])
    assert (embedder.max_length, cut.tolist(), embedder.truncated) == (6, [True, True, False], 2)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)  # the first four words, in lower case


def test_arrow_in_arrow_out(tiny_bert: Path) -> None:
    embedder = Embedder.load(tiny_bert, precision="fp32")
    found = embedder.embed_arrow(pa.chunked_array([["good film", None], ["bad film", ""]]))
    assert found.type == pa.list_(pa.float32(), 32)
    assert [value.is_valid for value in found] == [True, False, True, False]
    np.testing.assert_array_equal(found[2].as_py(), embedder.embed(["bad film"])[0])
    assert len(embedder.embed_arrow(pa.array([], pa.string()))) == 0


def test_ways_to_a_vector_that_are_not_computed_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    both = pools_by(tiny_bert, tmp_path / "both", pooling_mode_mean_tokens=True, pooling_mode_max_tokens=True)
    with pytest.raises(UnsupportedStatement, match="mean and max"):
        pooling_of(both)
    dense = pools_by(tiny_bert, tmp_path / "dense", pooling_mode_mean_tokens=True)
    modules = json.loads((dense / "modules.json").read_text())
    (dense / "modules.json").write_text(
        json.dumps([*modules, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}])
    )
    with pytest.raises(UnsupportedStatement, match="by Dense"):
        pooling_of(dense)


def test_the_default_prompt_stands_before_every_text(tiny_bert: Path, tmp_path: Path) -> None:
    folder = pools_by(tiny_bert, tmp_path / "model", pooling_mode_mean_tokens=True)
    prompts = {"prompts": {"query": "good ", "other": "bad "}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert prompt_of(folder) == ""
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps(prompts | {"default_prompt_name": "query"})
    )
    found = Embedder.load(folder, precision="fp32").embed(["film", "fine film", " "])
    wanted = Embedder.load(tiny_bert, precision="fp32").embed(["good film", "good fine film", None])
    np.testing.assert_array_equal(found, wanted)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean", "include_prompt": false}')
    with pytest.raises(UnsupportedStatement, match="leaves it out of the mean"):
        Embedder.load(folder)


def test_weights_that_lack_a_layer_are_no_encoder(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "model", kind="bert")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnknownModel, match="no complete encoder"):
        Embedder.load(folder)
