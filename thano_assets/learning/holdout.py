"""Which rows are held out to judge a model by."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

_JUDGING_SHARE, _JUDGING_LEAST, _JUDGING_MOST = 0.2, 50, 2_000


def hold_out(
    labels: np.ndarray, fraction: float, seed: int, texts: Sequence[Hashable] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into those trained on and those held out, each class in its share.

    About ``fraction`` of the rows are held out; every class keeps at least one row to train on, so a class of
    one row is never held out. With ``texts`` all rows of one text go to one side, and it is ``fraction`` of
    the distinct texts that are held out. The same arguments give the same split, and texts that all differ
    the same as none.

    Args:
        labels: class indices, shape (N,).
        fraction: share to hold out, in [0, 1).
        seed: which rows.
        texts: what is the same in rows that must not be parted, N values.

    Returns:
        Row numbers to train on and row numbers held out, both ascending.
    """
    if texts is None:
        return _by_rows(labels, fraction, seed)
    first: dict[Hashable, int] = {}
    group = np.fromiter((first.setdefault(text, len(first)) for text in texts), np.int64, len(labels))
    _, rows = np.unique(group, return_index=True)  # the first row of each text, in their order
    _, held = _by_rows(labels[rows], fraction, seed)
    out = np.isin(group, held)
    # A class whose last text to train on would be held out, because that text has other labels too, keeps it.
    for place in np.setdiff1d(labels[out], labels[~out]):
        out &= group != group[np.flatnonzero(out & (labels == place))[0]]
    return np.flatnonzero(~out), np.flatnonzero(out)


def _by_rows(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(labels)
    wanted = counts * fraction
    taken = np.minimum(np.floor(wanted).astype(np.int64), np.maximum(counts - 1, 0))
    # Largest remainders first, until the whole share is reached; a class's last row stays.
    missing = round(len(labels) * fraction) - int(taken.sum())
    for place in np.argsort(-(wanted - np.floor(wanted)), kind="stable"):
        if missing <= 0:
            break
        if wanted[place] > 0 and taken[place] + 1 < counts[place]:
            taken[place] += 1
            missing -= 1
    rng = np.random.default_rng([seed, 7])
    held = [rng.permutation(np.flatnonzero(labels == place))[:count] for place, count in enumerate(taken)]
    rows = np.sort(np.concatenate(held)) if held else np.empty(0, dtype=np.int64)
    return np.setdiff1d(np.arange(len(labels)), rows), rows


def judging_share(rows: int) -> float:
    """Share of ``rows`` training rows that judges the trials of a search; the rest trains them.

    A fifth, yet at least 50 rows where that is no more than a third, and at most 2,000: with those an
    accuracy of 0.9 is known to 0.007 (one standard error), and each epoch of each trial is judged.
    """
    wanted = max(_JUDGING_SHARE * rows, _JUDGING_LEAST)
    return min(wanted, rows / 3, _JUDGING_MOST) / rows
