from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from thano_assets.learning import threads


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_several_threads_with_one_core_each(three_threads: None) -> None:
    together = threading.Barrier(3)

    def work(item: int) -> tuple[int, int, int]:
        if item < 3:
            together.wait(30)  # passes only if three are worked on at a time
        time.sleep(0.01 * (7 - item % 7))
        return item * item, torch.get_num_threads(), threading.get_ident()

    found = list(threads.in_threads(work, range(20)))
    assert [square for square, _, _ in found] == [item * item for item in range(20)]
    assert {cores for _, cores, _ in found} == {1}
    assert len({thread for _, _, thread in found}) == 3
    assert torch.get_num_threads() == 3


def test_an_error_is_raised_and_items_after_it_are_left(three_threads: None) -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise ValueError("two")
        return item

    answers = threads.in_threads(work, range(1000))
    with pytest.raises(ValueError, match="two"):
        list(answers)
    assert max(begun) < 20
    assert list(threads.in_threads(lambda item: item, range(3))) == [0, 1, 2]


def test_who_stops_listening_stops_the_work(three_threads: None) -> None:
    begun: list[int] = []
    answers = threads.in_threads(lambda item: begun.append(item), range(1000))
    next(answers)
    answers.close()
    assert len(begun) < 20
