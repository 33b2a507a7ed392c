"""EXPLAIN PREDICT judged by deletion: does taking a word away do what its weight says?

    python benchmarks/explain_deletion.py REVIEWS.parquet [--reviews 200] [--words 256]

The file has a column ``review``; the pre-built model predicts and explains each. Both ways of explaining are
compared on the same reviews: over shares of attention, and over the vectors of the tokens. Reported are

- sign agreement: of the ten strongest words, how many move the log-odds of the label in the direction of
  their weight when every occurrence is deleted from the text;
- strongest against: whether deleting the strongest word against the label raises its log-odds;
- comprehensiveness: by how much the log-odds fall when the fifth of the words with the highest weights is
  deleted (higher is better), and sufficiency: by how much they fall when only those are kept (lower is
  better), after DeYoung et al. 2020, "ERASER: A Benchmark to Evaluate Rationalized NLP Models".
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from thano_assets.learning.explain import Explainer
from thano_assets.learning.predict import Predictor
from thano_assets.resources.base_models import materialize_prebuilt

TOP, SHARE = 10, 0.2


def without(pieces: list[tuple[int, str]], words: set[str], ids: np.ndarray) -> np.ndarray:
    """The tokens of a text without those of some words (casefolded)."""
    return ids[[number < 0 or word.casefold() not in words for number, word in pieces]]


def log_odds(predictor: Predictor, texts: list[np.ndarray], label: int) -> np.ndarray:
    """Log-odds of ``label`` for texts given as tokens."""
    from thano_assets.learning.encode import Encoded
    from thano_assets.learning.infer import logits_by_batch

    encoder = predictor._encoder
    encoded = Encoded(texts, [False] * len(texts), encoder.max_length)
    found = np.zeros((len(texts), len(predictor.classes)))
    for rows, logits in logits_by_batch(predictor._model, encoded, encoder.pad_id):
        found[rows] = logits
    others = np.delete(found, label, axis=1)
    return found[:, label] - np.log(np.exp(others).sum(axis=1))


def main() -> None:
    """Explain, delete, compare."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("file", type=Path)
    options.add_argument("--reviews", type=int, default=200)
    options.add_argument("--words", type=int, default=256, help="words of a review that are read")
    options.add_argument("--skip", type=int, default=0, help="reviews at the file's beginning to leave out")
    chosen = options.parse_args()
    rows = pq.read_table(chosen.file, columns=["review"]).slice(chosen.skip, chosen.reviews)
    texts = [" ".join(text.split()[: chosen.words]) for text in rows.column(0).to_pylist()]
    print(f"{platform.processor() or platform.machine()}, {len(texts)} reviews, up to {chosen.words} words")
    with tempfile.TemporaryDirectory() as folder:
        model = materialize_prebuilt(Path(folder) / "model").model_dir
        predictor = Predictor.load(model, precision="fp32")
        labels = predictor.predict(texts).argmax(axis=1)
        for name, shares in (("shares of attention", True), ("vectors of tokens", False)):
            explainer = Explainer.load(model)
            explainer._takes_shares = shares
            signs, against, comprehensive, sufficient, complete = [], [], [], [], 0
            seconds = 0.0
            for text, label in zip(texts, labels, strict=True):
                started = time.process_time()
                ((one,),) = explainer.explain_batches([([text], [int(label)])], 10**6)
                seconds += time.process_time() - started
                complete += one.complete
                pieces = explainer._pieces(text)
                ids = explainer._encoder.encode([text]).ids[0]
                strongest = one.words[:TOP]
                ranked = sorted(one.words, key=lambda word: -word[1])
                high = {word.casefold() for word, _ in ranked[: max(1, round(SHARE * len(ranked)))]}
                low = {word.casefold() for _, word in pieces} - high
                versions = [ids, *(without(pieces, {word.casefold()}, ids) for word, _ in strongest)]
                versions += [without(pieces, high, ids), without(pieces, low, ids)]
                odds = log_odds(predictor, versions, int(label))
                effects = odds[0] - odds[1 : 1 + len(strongest)]
                agree = np.sign(effects) == np.sign([weight for _, weight in strongest])
                signs.append(agree.mean())
                negative = [place for place, (_, weight) in enumerate(strongest) if weight < 0]
                if negative:
                    against.append(bool(agree[negative[0]]))
                comprehensive.append(odds[0] - odds[-2])
                sufficient.append(odds[0] - odds[-1])
            print(
                f"{name:20} sign agreement {np.mean(signs):.3f}, strongest against {np.mean(against):.3f} of "
                f"{len(against)}, comprehensiveness {np.mean(comprehensive):.2f}, sufficiency "
                f"{np.mean(sufficient):.2f}, adds up {complete} of {len(texts)}, "
                f"{seconds / len(texts):.2f} s of processor time a review"
            )


if __name__ == "__main__":
    main()
