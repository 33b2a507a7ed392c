"""What a linear model makes of the same rows: the figure that a fine-tuned model has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def linear_baseline(
    train_texts: Sequence[str],
    train_labels: np.ndarray,
    eval_texts: Sequence[str],
    eval_labels: np.ndarray,
    seed: int = 42,
) -> float | None:
    """Accuracy of TF-IDF of words and word pairs with logistic regression on the held-out rows.

    Sublinear term frequency, words and pairs of at least two texts (one, where texts are few), C = 10. On
    2,000 movie reviews, judged on 1,000 others, these settings were among the best of C from 1 to 100,
    words with or without single letters, and words of at least one or two texts.

    Args:
        train_labels: class indices, shape (N,).
        eval_labels: class indices, shape (M,).

    Returns:
        The accuracy in [0, 1], or ``None`` where no text holds a word to learn from.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    def words(rarest: int) -> TfidfVectorizer:
        pattern = r"(?u)\b\w+\b"  # single letters count too: "t" is half of "don't"
        return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=rarest, token_pattern=pattern)

    for rarest in (2, 1):
        vectorizer = words(rarest)
        try:
            train = vectorizer.fit_transform(train_texts)
        except ValueError:  # no word that often: few texts, or texts of punctuation only
            continue
        break
    else:
        return None
    model = LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
    model.fit(train, train_labels)
    return float((model.predict(vectorizer.transform(eval_texts)) == eval_labels).mean())


def majority_accuracy(train_labels: np.ndarray, eval_labels: np.ndarray) -> float:
    """Share of held-out rows that have the training rows' most frequent label."""
    return float((eval_labels == np.bincount(train_labels).argmax()).mean())
