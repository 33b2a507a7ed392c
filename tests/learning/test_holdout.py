from __future__ import annotations

import numpy as np
import pytest

from thano_assets.learning.holdout import hold_out


def test_stratified_and_seeded() -> None:
    labels = np.array([0] * 900 + [1] * 100)
    train, held = hold_out(labels, 0.1, seed=42)
    assert sorted([*train, *held]) == list(range(1000))
    assert np.bincount(labels[held]).tolist() == [90, 10]
    assert hold_out(labels, 0.1, seed=42)[1].tolist() == held.tolist()
    assert hold_out(labels, 0.1, seed=43)[1].tolist() != held.tolist()


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
def test_every_class_keeps_a_row_to_train_on(fraction: float) -> None:
    labels = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    train, held = hold_out(labels, fraction, seed=0)
    assert set(labels[train]) == {0, 1, 2, 3}
    assert len(train) + len(held) == len(labels)


def test_small_data_holds_out_about_the_share() -> None:
    labels = np.array([0, 1, 2, 3] * 5)  # a tenth of five rows is half a row of each class
    assert len(hold_out(labels, 0.1, seed=0)[1]) == 2


def test_zero_and_impossible_shares_hold_out_nothing() -> None:
    assert len(hold_out(np.array([0, 1] * 10), 0.0, seed=0)[1]) == 0
    assert len(hold_out(np.array([0, 1]), 0.5, seed=0)[1]) == 0


def test_copies_of_a_text_stay_on_one_side() -> None:
    texts = [f"text {number % 50}" for number in range(200)]
    labels = np.array([number % 2 for number in range(200)])
    train, held = hold_out(labels, 0.2, seed=42, texts=texts)
    assert sorted([*train, *held]) == list(range(200))
    assert len({texts[row] for row in held}) == 10  # a fifth of the distinct texts
    assert not {texts[row] for row in held} & {texts[row] for row in train}


def test_different_texts_split_as_rows_do() -> None:
    labels = np.array([0, 1, 1] * 40)
    for fraction in (0.1, 0.33):
        plain = hold_out(labels, fraction, seed=7)
        grouped = hold_out(labels, fraction, seed=7, texts=[str(row) for row in range(120)])
        assert [rows.tolist() for rows in plain] == [rows.tolist() for rows in grouped]


def test_a_class_that_stands_only_beside_another_keeps_a_row() -> None:
    texts, labels = ["both", "both", *(f"t{row}" for row in range(8))], np.array([0, 1] + [0] * 8)
    for seed in range(20):
        train, _ = hold_out(labels, 0.5, seed, texts)
        assert set(labels[train]) == {0, 1}
