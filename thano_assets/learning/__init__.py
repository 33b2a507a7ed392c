"""Learning from labelled text: encode, batch, train, predict, judge.

This room takes strings and Arrow and gives numbers and Arrow. It knows Transformers, Accelerate and
scikit-learn, and nothing of statements, Dagster, DuckDB or MLflow: it reports to a
:class:`thano_assets.progress.Progress` and to a callback. Its modules import torch, so import them inside
functions; :mod:`.settings` and this package itself are free of it.
"""
