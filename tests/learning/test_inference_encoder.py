"""The encoder for inference gives what Transformers' own classes give, and leaves to them what it does not know."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from thano_assets.learning import packed_attention as packed
from thano_assets.learning.inference_encoder import InferenceEncoder, Layout, NotServed, pooled
from thano_assets.learning.predict import Predictor, near_ties

from .conftest import make_tiny

CPU = torch.device("cpu")
LENGTHS = [[1], [5, 5, 5, 3], [100, 99, 64, 64, 64, 64, 64, 2, 2, 1], [7, 30, 7]]
KINDS = [("electra", 16), ("electra", 48), ("bert", 48)]


def stock(kind: str, embedding: int, **settings: Any) -> Any:
    """A random classifier of Transformers in which every tensor matters."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    if kind == "electra":
        settings["embedding_size"] = embedding
    sizes = {
        "vocab_size": 200,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 128,
        "num_labels": 3,
        "initializer_range": 0.3,
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **sizes | settings))
        for value in model.parameters():
            if value.dim() == 1:
                torch.nn.init.normal_(value, mean=0.5, std=0.3)
    return model.eval()


def batch(lengths: list[int]) -> dict[str, torch.Tensor]:
    width = max(lengths) + 4  # padding that belongs to no text
    mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(1, 200, mask.shape, generator=torch.Generator().manual_seed(sum(lengths)))
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize(("kind", "embedding"), KINDS)
def test_logits_are_those_of_transformers(kind: str, embedding: int, packs: bool, tmp_path: Path) -> None:
    model = stock(kind, embedding)
    model.save_pretrained(tmp_path)
    layout = Layout.read(tmp_path, classifier=True)
    exact, quick = (InferenceEncoder(layout, CPU, dtype) for dtype in (torch.float32, torch.bfloat16))
    exact.packs = quick.packs = packs
    for lengths in LENGTHS:
        with torch.inference_mode():
            wanted = model(**batch(lengths)).logits
            torch.testing.assert_close(exact(**batch(lengths)), wanted, atol=1e-4, rtol=0)
            torch.testing.assert_close(quick(**batch(lengths)), wanted, atol=0.15, rtol=0)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize(("kind", "embedding"), KINDS)
def test_vectors_are_those_of_transformers(
    kind: str, embedding: int, pooling: str, packs: bool, tmp_path: Path
) -> None:
    model = stock(kind, embedding)
    model.save_pretrained(tmp_path)
    lean = InferenceEncoder(Layout.read(tmp_path, classifier=False), CPU, torch.float32, pooling)
    lean.packs = packs
    for lengths in LENGTHS:
        given = batch(lengths)
        with torch.inference_mode():
            wanted = pooled(model.base_model(**given)[0], given["attention_mask"], pooling)
            torch.testing.assert_close(lean(**given), wanted, atol=1e-4, rtol=0)


def test_scores_beyond_the_range_of_powers_are_computed_in_the_usual_way(tmp_path: Path) -> None:
    model = stock("bert", 48)
    for layer in model.bert.encoder.layer:
        layer.attention.self.query.weight.data *= 60  # scores of some hundreds
    model.save_pretrained(tmp_path)
    lean = InferenceEncoder(Layout.read(tmp_path, classifier=True), CPU, torch.float32)
    for lengths in LENGTHS:
        with torch.inference_mode():
            torch.testing.assert_close(
                lean(**batch(lengths)), model(**batch(lengths)).logits, atol=1e-3, rtol=0
            )


def test_a_text_of_any_length_attends_to_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [9, 9, 9, 9, 9, 4, 1]
    products = torch.randn(sum(lengths), 3 * 8, generator=generator)
    groups = packed.groups_of(lengths)
    assert groups == [(0, 5, 9), (45, 1, 4), (49, 1, 1)]
    found = []
    for room in (1, 2 * 9 * 9 * 2, packed._SCORES):  # a text at a time, two, and all
        monkeypatch.setattr(packed, "_SCORES", room)
        found.append(torch.zeros(sum(lengths), 8))
        packed.attention(products, groups, 2, found[-1])
    first = 0
    for length in lengths:
        part = products[first : first + length]
        query, key, value = (one.unflatten(1, (2, 4)).transpose(0, 1) for one in part.chunk(3, dim=1))
        weights = (query @ key.transpose(1, 2) * np.log(2)).softmax(dim=-1)
        wanted = (weights @ value).transpose(0, 1).flatten(1)
        for one in found:
            torch.testing.assert_close(one[first : first + length], wanted)
        first += length


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_act": "gelu_new"},
        {"position_embedding_type": "relative_key"},
        {"model_type": "roberta"},
        {"is_decoder": True},
        {"num_hidden_layers": 2},
        {"intermediate_size": 95},
        {"quantization_config": {"bits": 4}},
        {"id2label": {"0": "a", "2": "b", "3": "c"}},
    ],
)
def test_another_layout_is_left_to_transformers(settings: dict[str, object], tmp_path: Path) -> None:
    stock("electra", 16).save_pretrained(tmp_path)
    Layout.read(tmp_path, classifier=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(NotServed):
        Layout.read(tmp_path, classifier=True)


@pytest.mark.parametrize("change", ["more", "less", "spoilt"])
def test_other_weights_are_left_to_transformers(change: str, tmp_path: Path) -> None:
    stock("electra", 16).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    if change == "more":
        weights["electra.encoder.layer.0.adapter.weight"] = torch.ones(2)
    else:
        del weights["classifier.out_proj.bias"]
    save_file(weights, file)
    if change == "spoilt":
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(NotServed):
        Layout.read(tmp_path, classifier=True)


def test_a_model_of_another_kind_answers_through_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = make_tiny(tmp_path / "model", kind="roberta")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(folder)
    predictor = Predictor.load(folder, precision="fp32")
    assert not isinstance(predictor._model, InferenceEncoder)
    model, tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    with torch.inference_mode():
        given = tokenizer("good film", return_tensors="pt", return_token_type_ids=False)
        wanted = model.eval()(**given).logits.softmax(-1).numpy()
    np.testing.assert_allclose(predictor.predict(["good film"]), wanted, atol=1e-5)


def test_near_ties_are_decided_in_float32(classifier: Path, tmp_path: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [f"{one}{other} {other}" for one in letters for other in letters]
    folder = shutil.copytree(classifier, tmp_path / "model")
    wider = {
        name: value * (20 if value.dim() == 2 else 1)
        for name, value in load_file(folder / "model.safetensors").items()
    }
    save_file(wider, folder / "model.safetensors", metadata={"format": "pt"})
    proba = Predictor.load(folder, precision="fp32").predict(texts)
    weights = load_file(folder / "model.safetensors")
    # Half of the texts are to have either label.
    weights["classifier.out_proj.bias"][0] -= float(np.median(np.log(proba[:, 0] / proba[:, 1])))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    exact, quick = (Predictor.load(folder, precision=how).predict(texts) for how in ("fp32", "bf16"))
    near = near_ties(np.log(exact))
    assert 0 < len(near) < len(texts) / 4
    surely = np.abs(np.log(exact[:, 0] / exact[:, 1])).argsort()[: len(near) // 4]
    np.testing.assert_allclose(quick[surely], exact[surely], atol=1e-6)
    assert np.abs(quick - exact).max() > 1e-5
    assert len(near_ties(np.zeros((4, 1), dtype=np.float32))) == 0


def test_predicting_and_embedding_import_no_transformers(classifier: Path) -> None:
    code = (
        "import sys; from pathlib import Path; folder = Path(sys.argv[1]);"
        "from thano_assets.learning.predict import Predictor;"
        "from thano_assets.learning.embed import Embedder;"
        "print(Predictor.load(folder).predict(['a b']).shape, Embedder.load(folder).embed(['a b']).shape,"
        "[name for name in ('transformers', 'accelerate', 'mlflow', 'sklearn', 'pandas') if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(classifier)], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "(1, 2) (1, 8) []"
