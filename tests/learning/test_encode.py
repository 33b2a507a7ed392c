from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from thano_assets.learning.encode import (
    Encoder,
    budgeted_batches,
    padded,
    shuffled_batches,
)


@pytest.fixture
def tokenizer(tiny_electra: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_electra)


NUMBERS = "one two three four five six seven eight nine ten"


def words(tokenizer, ids: np.ndarray) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(ids.tolist()))


def test_a_short_text_is_whole(tokenizer) -> None:
    found = Encoder(tokenizer, 16, 0.25).encode([NUMBERS])
    assert words(tokenizer, found.ids[0]) == f"[CLS] {NUMBERS} [SEP]"
    assert found.truncated == 0


def test_a_long_text_keeps_head_and_tail(tokenizer) -> None:
    found = Encoder(tokenizer, 6, 0.25).encode([NUMBERS, "good film"])
    assert words(tokenizer, found.ids[0]) == "[CLS] one eight nine ten [SEP]"
    assert found.cut == [True, False]


def test_head_share_one_cuts_as_transformers_does(tokenizer) -> None:
    found = Encoder(tokenizer, 6, 1.0).encode([NUMBERS])
    stock = tokenizer([NUMBERS], truncation=True, max_length=6)["input_ids"]
    assert found.ids[0].tolist() == stock[0]


def test_a_text_of_exactly_the_limit_is_not_cut(tokenizer) -> None:
    assert Encoder(tokenizer, 12, 0.25).encode([NUMBERS]).truncated == 0
    assert Encoder(tokenizer, 11, 0.25).encode([NUMBERS]).truncated == 1


def test_shortening_before_tokenizing_changes_nothing(tokenizer) -> None:
    text = " ".join([NUMBERS] * 500)
    encoder = Encoder(tokenizer, 20, 0.25)
    whole = tokenizer(text)["input_ids"]
    expected = whole[: 1 + encoder.head] + whole[-1 - encoder.tail :]
    assert encoder.shortened(text) != text
    assert encoder.encode([text]).ids[0].tolist() == expected


def test_way_of_cutting_travels_in_the_config(tokenizer, tiny_electra: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tiny_electra)
    stock = Encoder.of_model(tokenizer, config)
    assert (stock.max_length, stock.tail) == (40, 0)
    Encoder(tokenizer, 10, 0.5).keep_in(config)
    kept = Encoder.of_model(tokenizer, config)
    assert (kept.max_length, kept.head, kept.tail) == (10, 4, 4)


def test_padding(tokenizer) -> None:
    ids, mask = padded([np.array([5, 6, 7]), np.array([8])], 0, limit=4)
    assert ids.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert padded([np.arange(33)], 0, limit=512)[0].shape == (1, 64)
    assert padded([np.arange(510)], 0, limit=510)[0].shape == (1, 510)


def test_shuffled_batches_hold_each_row_once_and_depend_on_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(3, 300, 1003)
    first = shuffled_batches(lengths, 4, seed=1, epoch=0)
    again = shuffled_batches(lengths, 4, seed=1, epoch=0)
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]
    assert sorted(np.concatenate(first).tolist()) == list(range(1003))
    assert max(map(len, first)) == 4
    for other in (shuffled_batches(lengths, 4, 2, 0), shuffled_batches(lengths, 4, 1, 1)):
        assert [batch.tolist() for batch in first] != [batch.tolist() for batch in other]
    padding = sum(len(batch) * lengths[batch].max() for batch in first) / lengths.sum()
    assert padding < 1.1  # rows of a batch are of like length; unsorted batches of 4 pad to about 1.6


def test_budgeted_batches_hold_each_row_once_within_the_budget() -> None:
    lengths = np.array([5, 900, 30, 31, 3000, 2, 64])
    batches = list(budgeted_batches(lengths, 1000))
    assert sorted(np.concatenate(batches).tolist()) == list(range(7))
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= 1000 for batch in batches)
    assert batches[0].tolist() == [4]
    assert max(map(len, batches)) > 2
    few = list(budgeted_batches(lengths, 1000, most_rows=2))
    assert max(map(len, few)) == 2
    assert sorted(np.concatenate(few).tolist()) == list(range(7))
