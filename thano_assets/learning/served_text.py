"""A text classifier as MLflow serves it: rows in, what PREDICT answers out.

This file goes along with every such model into MLflow as ``thano_text_model.py``, so it stands by itself: it
needs torch, Transformers, pandas and MLflow, and nothing of this package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_BATCH = 32


class TextModel:
    """The classifier in ``folder``, a complete Hugging Face folder.

    Args:
        folder: With ``labels.json`` beside it: ``classes``, ``type`` (the DuckDB type of labels),
            ``text_col`` (the column that the model was trained on) and ``max_length`` (tokens of a text that
            are read).
    """

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        kept = json.loads((folder.parent / "labels.json").read_text(encoding="utf-8"))
        self.classes = [_label(text, kept["type"]) for text in kept["classes"]]
        self.text_col = kept.get("text_col") or "text"
        self.max_length = kept["max_length"]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(str(folder), local_files_only=True)
        self.model = model.to(self.device).eval()

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The answers, one row for each row of the input.

        Args:
            model_input: A DataFrame or records with the column that the model was trained on (other columns
                are left alone), one column of any name, a list or Series of texts, or one text.
            params: None are known.

        Returns:
            ``predicted`` (in the labels' own type), ``probability``, and ``probabilities`` (of every class,
            by its text). All three are missing where a row has no text.

        Raises:
            MlflowException: the input has several columns and none of that name; or a value is no text. A
                server gives its sentence to whoever asked.
        """
        texts = self._texts(model_input)
        asked = [place for place, text in enumerate(texts) if text is not None and text.strip()]
        asked.sort(key=lambda place: len(texts[place] or ""))  # alike in length: little padding
        predicted: list[Any] = [None] * len(texts)
        probability: list[float | None] = [None] * len(texts)
        every: list[dict[str, float] | None] = [None] * len(texts)
        for first in range(0, len(asked), _BATCH):
            places = asked[first : first + _BATCH]
            for place, row in zip(places, self._scores([texts[one] or "" for one in places]), strict=True):
                best = int(row.argmax())
                predicted[place], probability[place] = self.classes[best], float(row[best])
                every[place] = {str(name): float(one) for name, one in zip(self.classes, row, strict=True)}
        return pd.DataFrame(
            {
                "predicted": pd.Series(predicted, dtype=object),
                # JSON has no word for NaN: where one is missing, the column holds None.
                "probability": pd.Series(probability, dtype=object if None in probability else float),
                "probabilities": pd.Series(every, dtype=object),
            }
        )

    def _scores(self, texts: list[str]) -> np.ndarray:
        """Probabilities, float32 of shape (N, C)."""
        import torch

        encoded = self.tokenizer(
            texts, truncation=True, max_length=self.max_length, padding=True, return_tensors="pt"
        ).to(self.device)
        with torch.inference_mode():
            logits = self.model(**encoded).logits.float()
        found: np.ndarray = torch.softmax(logits, dim=-1).cpu().numpy()
        return found

    def _texts(self, given: Any) -> list[str | None]:
        if isinstance(given, str):
            given = [given]
        if isinstance(given, dict):
            given = pd.DataFrame({name: np.atleast_1d(values) for name, values in given.items()})
        if isinstance(given, list) and given and isinstance(given[0], dict):
            given = pd.DataFrame(given)
        if isinstance(given, pd.DataFrame):
            given = given[self._column(given)]
        values = [None if _missing(value) else value for value in given]
        for value in values:
            if value is not None and not isinstance(value, str):
                raise _wrong(f"The model reads texts, and {value!r} is a {type(value).__name__}.")
        return values

    def _column(self, rows: pd.DataFrame) -> Any:
        for name in (self.text_col, "text"):
            for column in rows.columns:
                if str(column).casefold() == name.casefold():
                    return column
        if rows.shape[1] == 1:
            return rows.columns[0]
        listed = ", ".join(map(str, rows.columns))
        raise _wrong(f"The rows have no column {self.text_col}; they have: {listed}.")


def _wrong(sentence: str) -> Exception:
    from mlflow.exceptions import MlflowException

    return MlflowException.invalid_parameter_value(sentence)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _label(text: str, type_: str) -> Any:
    """A label as Python has it: a number or boolean where its DuckDB type is one, else its text."""
    if type_ == "BOOLEAN":
        return text == "true"
    if type_.endswith("INT") or type_ in ("INTEGER", "UINTEGER"):
        return int(text)
    return float(text) if type_ in ("FLOAT", "DOUBLE") or type_.startswith("DECIMAL") else text


def _load_pyfunc(path: str) -> TextModel:
    return TextModel(Path(path))
