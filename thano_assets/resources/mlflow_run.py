"""One training as an MLflow run: figures while it goes on, a registered version when it is done.

Everything goes through ``MlflowClient``; MLflow's fluent interface, which keeps one active run and one
server address for the whole process, is left to the user.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WorkspaceError
from ..sql.grammar import CHAMPION
from ..stopping import permit
from .settings import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from .registry import ModelVersion, Registry

METRICS_TAG = "thano.metrics"
#: What programs read of a version, as JSON: one tag, so that the page shows the few that people read.
DETAILS_TAG = "thano.details"
#: Where MLflow's page of ``thano ui`` leads on to a run of Dagster's.
DAGSTER_RUNS = "/thano/runs/"
_SHOWN_TAGS = ("base", "rows", "dagster run", "promoted")
RUN_TAG_LENGTH = 8_000  # MLflow's limits
_PARAM_LENGTH = 6_000
#: Of a description; its last part is kept whole, the parts before it are cut.
DESCRIPTION_LENGTH = 5_000
_VERSION_TAG_LENGTH = 100_000
DIGEST_LENGTH = 36
_STATEMENT_SHOWN = 1_500
_VERDICT_LENGTH = 500
_FLUSH_SECONDS = 2.0
_PARENT_TAG = "mlflow.parentRunId"  # how MLflow's pages nest runs


# Figures that a description tells, in words.
_FIGURES = {
    "accuracy": "accuracy",
    "f1_macro": "F1 (macro)",
    "baseline_accuracy": "accuracy of TF-IDF with logistic regression",
    "majority_accuracy": "accuracy of always answering the most frequent class",
    "rmse": "RMSE",
    "r2": "R2",
    "baseline_rmse": "RMSE of always answering the mean",
}


@dataclass
class BuildRun:
    """An MLflow run in progress; made by :meth:`Registry.build`.

    Attributes:
        status: how the run ends whatever is raised; ``None`` leaves that to how its block ends.
        registered: the version that it made.
    """

    registry: Registry
    client: MlflowClient
    name: str
    experiment_id: str
    run_id: str
    tags: dict[str, str]
    status: str | None = None
    registered: ModelVersion | None = None
    _pending: list[Any] = field(default_factory=list)
    _flushed: float = field(default_factory=time.monotonic)
    _step: int = 0
    _seen: set[str] = field(default_factory=set)
    _params: dict[str, str] = field(default_factory=dict)
    _dataset: dict[str, str] = field(default_factory=dict)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings as text; those without a value, and those that are recorded, are left out."""
        from mlflow.entities import Param

        new = {
            key: str(value)[:_PARAM_LENGTH]
            for key, value in params.items()
            if value is not None and key not in self._params
        }
        self._params |= new
        entries = [Param(key, value) for key, value in new.items()]
        for first in range(0, len(entries), 100):
            self.client.log_batch(self.run_id, params=entries[first : first + 100])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record figures at a step; they reach the database together, every two seconds."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for key, value in metrics.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and key != "step":
                self._pending.append(Metric(key, float(value), now, step))
                self._seen.add(key)
        self._step = max(self._step, step)
        if time.monotonic() - self._flushed >= _FLUSH_SECONDS or len(self._pending) >= 900:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            for first in range(0, len(self._pending), 1000):
                self.client.log_batch(self.run_id, metrics=self._pending[first : first + 1000])
            self._pending = []
        self._flushed = time.monotonic()

    def log_figure(self, name: str, png: bytes) -> None:
        """Keep a picture, PNG, under ``figures/``."""
        self._artifact(name if name.endswith(".png") else f"{name}.png", png, "figures")

    def log_text(self, name: str, text: str) -> None:
        """Keep a text file."""
        self._artifact(name, text.encode(), None)

    def _artifact(self, name: str, content: bytes, folder: str | None) -> None:
        with tempfile.TemporaryDirectory(prefix="thano-artifact-") as temporary:
            file = Path(temporary) / re.sub(r"[^\w.() -]", "_", name)
            file.write_bytes(content)
            self.client.log_artifact(self.run_id, str(file), folder)

    def log_dataset(self, name: str, digest: str, rows: int, source: str) -> None:
        """Record what the model was trained on: see :func:`log_dataset`."""
        log_dataset(self.client, self.run_id, name, digest, rows, source, context="training")
        self._dataset = {"dataset_name": name[:500], "dataset_digest": digest[:DIGEST_LENGTH]}

    def register(
        self,
        model_dir: Path,
        labels: Mapping[str, Any] | None,
        metrics: Mapping[str, float],
        tags: Mapping[str, str] | None = None,
        champion: bool = True,
    ) -> ModelVersion:
        """Register the folder ``model_dir`` as the model's next version.

        Everything is in place before the version appears, and the alias moves last: whoever asks for the
        champion gets the old version or the new one, complete.

        Args:
            model_dir: config, weights and tokenizer, of Hugging Face; or of a model of tables.
            labels: ``classes`` in the order of the outputs, as text, and ``type``, their DuckDB type; of a
                model of tables also ``task``, ``target`` and ``features``; a base model has none (``None``).
            metrics: figures of this version.
            tags: what made it; ``thano.max_length`` cuts long texts at that many tokens.
            champion: whether plain ``name`` means this version from now on.

        Raises:
            WorkspaceError: ``model_dir`` is not the folder of such a model, or the disk is full.
        """
        from mlflow.entities import LoggedModelOutput, Metric

        given = {**self.tags, **(tags or {})}
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(float(value))}
        logged, before = None, None
        try:
            with tempfile.TemporaryDirectory(prefix="thano-mlflow-") as temporary:
                target = Path(temporary) / "model"
                kept = None if labels is None else dict(labels)
                logged = self._log_model(Path(model_dir), target, kept, finite, given)
                now, step = int(time.time() * 1000), self._step
                self._pending += [
                    Metric(self._final(key), value, now, step, model_id=logged.model_id, **self._dataset)
                    for key, value in finite.items()
                ]
                self._flush()
                self.client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step)])
                with self.registry.exclusive(self.name):
                    before = self.registry.answering(self.name)
                    permit()
                    version = self._create_version(logged, labels, finite, given)
                    self.registered = self.registry.resolve(self.name, version=version)
                    if self.registered is not None and not self.registry.is_local:
                        self.registry.keep_fetched(self.registered, target)
                    if (
                        champion
                    ):  # last: whoever asks for the champion gets the old version or all of this one
                        self.registry.set_alias(self.name, version)
                        self.registered = self.registry.resolve(self.name, version=version)
        except BaseException as error:
            with suppress(Exception):  # the error that is told is the first one
                self.registry.withdraw(self.name, self.run_id, before)
                if logged is not None:
                    self.registry.drop_unregistered(self.client, self.experiment_id, self.run_id)
            if isinstance(error, OSError):
                raise WorkspaceError(
                    f"The model {self.name} cannot be kept in {self.registry.artifacts}: "
                    f"{error.strerror or error}.",
                    hint="`thano doctor` shows the free space.",
                ) from error
            raise
        assert self.registered is not None
        with suppress(Exception):  # the version is there, whatever its run is called
            self.client.update_run(self.run_id, name=_title(self.registered))
            if rows := _rows(given):
                self.client.set_tag(self.run_id, "rows", rows)
        self.status = "FINISHED"
        return self.registered

    @contextmanager
    def nested(self, title: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[BuildRun]:
        """A run under this one; it ends as its block does, or as :meth:`finish` said."""
        marks = {_PARENT_TAG: self.run_id}
        with self.registry.open_run(self.experiment_id, self.name, title, tags, marks, params) as run:
            yield run

    def finish(self, status: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Record final figures and tags; the run will end with ``status``."""
        finite = {key: value for key, value in metrics.items() if math.isfinite(value)}
        self.log_metrics({self._final(key): value for key, value in finite.items()}, self._step)
        for key, value in cut(tags, RUN_TAG_LENGTH).items():
            self.client.set_tag(self.run_id, key, value)
        self.status = status

    def adopt(self, run_id: str, status: str) -> None:
        """Put a run that ended under another one, which was killed, under this one."""
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):  # somebody deleted it
            self.client.set_tag(run_id, _PARENT_TAG, self.run_id)
            if self.client.get_run(run_id).info.status != status:  # the kill came amid its last words
                self.client.set_terminated(run_id, status)

    def _final(self, key: str) -> str:
        """A final figure does not go on the curve of a figure of the same name that was logged by steps."""
        return f"final_{key}" if key in self._seen else key

    def _log_model(
        self,
        source: Path,
        target: Path,
        labels: dict[str, Any] | None,
        metrics: dict[str, float],
        tags: dict[str, str],
    ) -> Any:
        from mlflow.models import Model

        from . import mlflow_table
        from .mlflow_model import save, save_base

        logged = self.client.create_logged_model(
            self.experiment_id,
            name=re.sub(r"[/:.%\"']", "_", self.name),
            source_run_id=self.run_id,
            tags=cut(tags, RUN_TAG_LENGTH),
            params=self._params,
            model_type=_model_type(labels),
        )
        try:
            model = Model(
                artifact_path=logged.artifact_location, run_id=self.run_id, model_id=logged.model_id
            )
            if labels is None:
                save_base(source, target, model=model, card=_base_card(self.name, metrics, tags))
            elif labels.get("task"):
                texts = _description(tags, labels), _figures(metrics), CHAMPION
                card = mlflow_table.card(self.name, *texts)
                mlflow_table.save(source, target, model=model, labels=labels, card=card)
            else:
                wanted = tags.get("thano.max_length", "")
                save(
                    source,
                    target,
                    model=model,
                    labels=labels,
                    max_length=int(wanted) if wanted.isdigit() else None,
                    card=_card(self.name, labels, metrics, tags),
                )
            self.client.log_model_artifacts(logged.model_id, str(target))
            self.client.finalize_logged_model(logged.model_id, "READY")
        except BaseException:
            with suppress(Exception):  # the error that is told is the first one
                self.registry.drop_unregistered(self.client, self.experiment_id, self.run_id)
            raise
        return logged

    def _create_version(
        self, logged: Any, labels: Mapping[str, Any] | None, metrics: dict[str, float], tags: dict[str, str]
    ) -> int:
        from mlflow.exceptions import MlflowException

        statement = tags.get("thano.statement", "")
        if len(statement) > _STATEMENT_SHOWN:  # the model's README.md has all of it
            statement = statement[:_STATEMENT_SHOWN] + "\n…"
        about = _description({**tags, "thano.statement": statement}, labels)
        told = [_summary(labels, metrics, tags), about]
        made_by = tags.get("dagster.run_id")
        if made_by and self.registry.is_local:  # its page is ours, and knows where Dagster's is today
            told.append(f"Made by [Dagster's run {made_by[:8]}]({DAGSTER_RUNS}{made_by}).")
        description = _fitted([*told, self._use(CHAMPION, labels)])
        with suppress(MlflowException):  # it is there, from an earlier version or another process
            self.client.create_registered_model(self.name, description=description)
        self.client.update_registered_model(self.name, description)
        version = self.client.create_model_version(
            self.name,
            # On SQLite, a models:/ address would be looked up in the process's server, not in this one.
            logged.artifact_location if self.registry.is_local else f"models:/{logged.model_id}",
            self.run_id,
            tags=version_tags(tags, metrics),
            description=description,
            model_id=logged.model_id,
        )
        number = str(version.version)
        description = _fitted([*told, self._use(number, labels)])
        self.client.update_model_version(self.name, number, description)
        self.client.set_tag(self.run_id, "mlflow.note.content", description)
        known = json.dumps([{"name": self.name, "version": int(version.version)}])
        self.client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": known})
        return int(version.version)

    def _use(self, which: str, labels: Mapping[str, Any] | None) -> str:
        """Lines of Python that load the model, by a version's number or an alias, and ask it."""
        named = f"models:/{self.name}{f'/{which}' if which.isdigit() else f'@{which}'}"
        # As JSON, which Python reads alike: a name may hold quotes.
        address = json.dumps(named, ensure_ascii=False)
        uri = json.dumps(without_password(self.registry.tracking_uri), ensure_ascii=False)
        lines = ["import mlflow", "", f"mlflow.set_tracking_uri({uri})"]
        if labels is None:
            lines += ["import mlflow.transformers", f"encoder = mlflow.transformers.load_model({address})"]
        elif labels.get("task"):
            names = [str(one["name"]) for one in labels["features"]]
            shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            lines.append(f"model = mlflow.pyfunc.load_model({address})")
            lines.append(f"print(model.predict(frame))  # a pandas DataFrame with the columns {shown}")
        else:
            lines.append(f"model = mlflow.pyfunc.load_model({address})")
            lines.append('print(model.predict(["a text", "another text"]))')
        return "```python\n" + "\n".join(lines) + "\n```"

    def close(self, status: str) -> None:
        """Write what is pending and end the run; called by :meth:`Registry.build`."""
        try:
            self._flush()
        finally:
            self.client.set_terminated(self.run_id, status)


def log_dataset(
    client: MlflowClient, run_id: str, name: str, digest: str, rows: int, source: str, *, context: str
) -> None:
    """Record rows that a run read (``context`` says what for): MLflow keeps name and digest, not the rows."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=name[:500],
        digest=digest[:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": source}),
        profile=json.dumps({"num_rows": rows, "fingerprint": digest}),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])


def version_tags(tags: Mapping[str, str], metrics: Mapping[str, float]) -> dict[str, str]:
    """Tags of a registered version: a few for people, and one with all of them for programs."""
    values = (tags.get("thano.base"), _rows(tags), tags.get("dagster.run_id"))
    shown = dict(zip(_SHOWN_TAGS, values, strict=False))  # whether it is promoted comes later
    kept = {**tags, METRICS_TAG: json.dumps(metrics)}
    details = json.dumps(kept, ensure_ascii=False)
    packed = {DETAILS_TAG: details} if len(details) <= _VERSION_TAG_LENGTH else cut(kept, _VERSION_TAG_LENGTH)
    return {key: value for key, value in shown.items() if value} | packed


def _rows(tags: Mapping[str, str]) -> str | None:
    train, held_out = tags.get("thano.rows_train"), tags.get("thano.rows_eval")
    return f"{train} to train on, {held_out} held out" if train else None


def unpacked(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a version as :func:`version_tags` was given them; those that were set later take precedence."""
    found = dict(tags)
    details: Any = {}
    with suppress(ValueError):  # somebody wrote something else there, on MLflow's page
        details = json.loads(found.pop(DETAILS_TAG, "{}"))
    for name in _SHOWN_TAGS:
        found.pop(name, None)
    return (details if isinstance(details, dict) else {}) | found


def cut(tags: Mapping[str, str], length: int) -> dict[str, str]:
    """Tags as text within MLflow's limit of length."""
    return {
        key: text if len(text) <= length else text[: length - 1] + "…"
        for key, text in ((key, str(value)) for key, value in tags.items())
    }


def _title(version: ModelVersion) -> str:
    """A run's name in MLflow's list: ``ticket_router v4 · head · acc 0.45``."""
    parts = [
        f"{version.name} v{version.version}",
        version.tags.get("thano.learner") or version.params.get("train", ""),
    ]
    if "accuracy" in version.metrics:
        parts.append(f"acc {version.metrics['accuracy']:.2f}")
    elif "rmse" in version.metrics:
        parts.append(f"RMSE {version.metrics['rmse']:.4g}")
    return " · ".join(filter(None, parts))


def _model_type(labels: Mapping[str, Any] | None) -> str:
    if labels is None:
        return "base model"
    return "regressor" if labels.get("task") == "regression" else "classifier"


def _fitted(parts: list[str]) -> str:
    """Paragraphs as a description; the last one stays whole, and there is room for a verdict before them."""
    *told, last = filter(None, parts)
    room = DESCRIPTION_LENGTH - _VERDICT_LENGTH - len(last) - 4
    text = "\n\n".join(told)
    return "\n\n".join([text if len(text) <= room else text[: room - 1] + "…", last])[:DESCRIPTION_LENGTH]


def _summary(labels: Mapping[str, Any] | None, metrics: Mapping[str, float], tags: Mapping[str, str]) -> str:
    """What a version is, what it was trained on, and how good it is beside the baselines."""
    if labels is None:
        return "An encoder of texts to train classifiers from."
    sentences = []
    if not labels.get("task"):
        classes = [str(one) for one in labels.get("classes", [])]
        listed = ", ".join(classes[:10]) + (f" and {len(classes) - 10} more" if len(classes) > 10 else "")
        sentences.append(f"A text classifier with {len(classes)} classes: {listed}.")
    train, held_out = tags.get("thano.rows_train", ""), tags.get("thano.rows_eval", "")
    if train.isdigit():
        sentences.append(f"Trained on {int(train):,} rows.")
    shown = [
        f"{words} {metrics[name]:.4g}"
        for name, words in _FIGURES.items()
        if name in metrics and held_out.isdigit()
    ]
    if shown:
        sentences.append(f"On {int(held_out):,} held-out rows: {', '.join(shown)}.")
    return " ".join(sentences)


def _description(tags: Mapping[str, str], labels: Mapping[str, Any] | None = None) -> str:
    lines = []
    if statement := tags.get("thano.statement"):
        lines.append(f"```sql\n{statement}\n```")
    source = tags.get("thano.base_source")
    if labels and labels.get("task"):
        from .mlflow_table import description

        lines.append(description(labels, tags))
    elif source:
        base = tags.get("thano.base", "")
        parts = [part for part in (source, tags.get("thano.base_revision")) if part]
        lines.append(f"Base model {base}: {', '.join(parts)}.")
    if note := tags.get("thano.base_note"):
        lines.append(note)
    return "\n\n".join(lines)


def _base_card(name: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> str:
    return (
        f"# {name}\n\nAn encoder of text to train from, pre-trained further by ELECTRA's replaced token "
        "detection; it has no head and gives no labels.\n\n"
        + f"{_description(tags)}\n\n"
        + _figures(metrics)
        + "## Use\n\n"
        f"`BUILD MODEL classifier USING {name} OPTIONS (…) AS SELECT …` trains a classifier from it. The "
        "folder `model/` is a Hugging Face folder of its own, for `AutoModel` and "
        "`AutoModelForSequenceClassification`.\n"
    )


def _figures(metrics: Mapping[str, float]) -> str:
    rows = "\n".join(f"| {key} | {value:.4g} |" for key, value in metrics.items())
    return f"| figure | value |\n|---|---|\n{rows}\n\n" if rows else ""


def _card(name: str, labels: Mapping[str, Any], metrics: Mapping[str, float], tags: Mapping[str, str]) -> str:
    classes = [str(one) for one in labels.get("classes", [])]
    listed = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    return (
        f"# {name}\n\nA text classifier with {len(classes)} classes: {listed} "
        f"(type {labels.get('type', 'VARCHAR')}; `labels.json` keeps their order).\n\n"
        + f"{_description(tags)}\n\n"
        + _figures(metrics)
        + "## Use\n\n```python\nimport mlflow\n\n"
        f'model = mlflow.pyfunc.load_model("models:/{name}@{CHAMPION}")\n'
        'model.predict(["a text", "another"])  # predicted, probability, probabilities\n```\n\n'
        "`mlflow.transformers.load_model` gives the pipeline; call it with `truncation=True` where texts "
        "are long.\n"
        "The folder `model/` is a Hugging Face folder of its own.\n"
    )
