"""A tokenizer read without Transformers gives the ids that Transformers gives, or is not read so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from thano_assets.learning.encode import Encoder
from thano_assets.learning.tokens import FastTokenizer, load_tokenizer, read_tokenizer
from thano_assets.resources.packaged import MINILM

TEXTS = [
    "Good film!",
    "",
    "naïve Café — 한국어 日本 [SEP] x",
    "a" * 300,
    "one\ttwo\u200bthree",
    "[MASK] [PAD]",
]


def same_as_transformers(folder: Path) -> None:
    from transformers import AutoTokenizer

    ours, theirs = read_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert isinstance(ours, FastTokenizer)
    assert ours(TEXTS)["input_ids"] == theirs(TEXTS)["input_ids"]
    assert ours.pad_token_id == theirs.pad_token_id
    assert ours.model_max_length == theirs.model_max_length
    one, other = Encoder(ours, 6, 0.5), Encoder(theirs, 6, 0.5)
    assert (one.head, one.tail, one.pad_id) == (other.head, other.tail, other.pad_id)
    assert [ids.tolist() for ids in one.encode(TEXTS).ids] == [
        ids.tolist() for ids in other.encode(TEXTS).ids
    ]


def test_the_packaged_encoders_tokenizer() -> None:
    same_as_transformers(MINILM.folder())


def test_a_tokenizer_saved_by_transformers(tmp_path: Path, tiny_electra: Path, classifier: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(MINILM.folder()).save_pretrained(tmp_path)
    for folder in (tmp_path, tiny_electra, classifier):
        same_as_transformers(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"cls_token": "[UNK]"},
        {"tokenizer_class": "XLMRobertaTokenizer"},
        {"additional_special_tokens": ["[NEW]"]},
        {"mask_token": "<mask>"},
    ],
)
def test_settings_that_differ_from_the_file_are_left_to_transformers(
    settings: dict[str, object], tmp_path: Path
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "config.json"):
        shutil.copy(MINILM.folder() / name, tmp_path / name)
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said | settings))
    assert read_tokenizer(tmp_path) is None


def test_in_doubt_transformers_reads_it(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "config.json"):
        shutil.copy(MINILM.folder() / name, tmp_path / name)
    said = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"do_lower_case": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    assert not isinstance(load_tokenizer(tmp_path), FastTokenizer)
