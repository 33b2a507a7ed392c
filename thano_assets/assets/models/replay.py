"""Replay: a version trained again from what is kept of it, to register it again or to see that it is equal.

What is kept: the training rows as a snapshot, the statement with its options and seed, the base model's
identity and the parent's weights.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from thano_assets.assets.models.bases import base_behind
from thano_assets.assets.models.leakage import parent_version
from thano_assets.assets.models.pretrained_models import Pretraining, pretraining_from
from thano_assets.assets.models.training import Training
from thano_assets.assets.models.training_inputs import training_from
from thano_assets.assets.models.training_sets import TrainingSet
from thano_assets.assets.models.tuning import CHOSEN_TAG, parameters
from thano_assets.assets.runtime import Runtime
from thano_assets.errors import UnsupportedStatement, WorkspaceError
from thano_assets.resources.mlflow_reader import VERIFICATION_TAG
from thano_assets.sql import parse
from thano_assets.sql.statements import BuildBaseModel, BuildModel, FitModel, TrainModel

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.resources.registry import ModelVersion


@dataclass(frozen=True)
class Finding:
    """One row of a report: what was compared, as it was and as it came out.

    Attributes:
        what: Its name.
        then: Of the version; ``None`` where it was not recorded.
        now: Of the training that was done again.
        result: Whether it is part of what was computed, and not of where it was computed.
    """

    what: str
    then: str | None
    now: str
    result: bool

    @property
    def equal(self) -> bool | None:
        """Whether both are the same; ``None`` where it was not recorded."""
        return None if self.then is None else self.then == self.now


@dataclass(frozen=True)
class Report:
    """What a replay found, and the MLflow run that keeps it."""

    version: ModelVersion
    findings: list[Finding]
    run_id: str

    @property
    def equal(self) -> bool:
        """Whether everything that was computed came out the same."""
        return all(finding.equal is not False for finding in self.findings if finding.result)

    @property
    def sentence(self) -> str:
        """The outcome, with what differs."""
        name = f"{self.version.name} version {self.version.version}"
        results = [finding for finding in self.findings if finding.result]
        if self.equal:
            return f"{name} came out equal: {', '.join(finding.what for finding in results)}"
        differing = [finding.what for finding in results if finding.equal is False]
        around = [
            f"{finding.what} was {finding.then}, is {finding.now}"
            for finding in self.findings
            if not finding.result and finding.equal is False
        ]
        because = f" ({'; '.join(around)})" if around else ", and nothing that is recorded explains it"
        return f"{name} came out different: {', '.join(differing)}{because}"

    def table(self) -> pa.Table:
        """The rows ``what``, ``then``, ``now`` and ``equal``."""
        import pyarrow as pa

        return pa.table(
            {
                "what": pa.array([finding.what for finding in self.findings], pa.string()),
                "then": pa.array([finding.then for finding in self.findings], pa.string()),
                "now": pa.array([finding.now for finding in self.findings], pa.string()),
                "equal": pa.array([finding.equal for finding in self.findings], pa.bool_()),
            }
        )


def training_behind(version: ModelVersion, runtime: Runtime) -> Training | Pretraining:
    """The training that made ``version``, from what is kept of it.

    Raises:
        UnsupportedStatement: it was not trained here.
        WorkspaceError: its training rows, its parent or the base model built here that it started from are no
            longer kept.
        BaseModelUnavailable: no source has the base model now.
    """
    who = f"{version.name} VERSION {version.version}"
    statements = parse(version.tags.get("thano.statement", ""))
    statement = statements[0] if len(statements) == 1 else None
    if not isinstance(statement, TrainModel):
        raise UnsupportedStatement(
            f"{who} was not trained here, so it cannot be trained again.",
            hint="Versions that BUILD MODEL or FIT MODEL made can.",
        )
    training_set = _training_set(version, runtime)
    parent = base = None
    if isinstance(statement, BuildModel):
        base = base_behind(version, runtime.registry)
        if isinstance(statement, BuildBaseModel):
            return pretraining_from(version.name, statement, training_set, runtime, base=base)
    if isinstance(statement, FitModel):
        reference = version.tags.get("thano.parent", "")
        parent = parent_version(reference, runtime)
        if parent is None or not (parent.path / "config.json").is_file():
            raise WorkspaceError(
                f"{who} went on from {reference}, which is no longer kept.",
                hint="FIT MODEL trains on from a version that is there.",
            )
    training = training_from(version.name, statement, training_set, parent, runtime, base=base)
    return replace(training, again=version)


def _training_set(version: ModelVersion, runtime: Runtime) -> TrainingSet:
    workspace = runtime.workspace
    fingerprint = version.tags.get("thano.training_set", "")
    identity = version.tags.get("thano.training_set_identity")
    if identity is None:  # versions of before it was kept: any reading of the same rows has the same texts
        described = sorted(workspace.snapshots.glob(f"{fingerprint}-*.json")) if fingerprint else []
        identity = described[0].stem if described else ""
    try:
        training_set = TrainingSet.load(workspace, version.name, identity)
        if training_set.snapshot(workspace).is_file():
            return training_set
    except WorkspaceError:
        pass
    raise WorkspaceError(
        f"The rows that {version.name} VERSION {version.version} was trained on are no longer kept "
        f"(snapshots/{fingerprint}.parquet).",
        hint="BUILD MODEL trains on the rows that the query gives now.",
    )


def verify(version: ModelVersion, runtime: Runtime) -> Report:
    """Train ``version`` again, register nothing, and compare; the report is kept as an MLflow run.

    Raises:
        UnsupportedStatement, WorkspaceError, BaseModelUnavailable: as :func:`training_behind`.
    """
    training = training_behind(version, runtime)
    tags = {
        VERIFICATION_TAG: f"{version.name} VERSION {version.version}",
        "thano.statement": version.tags.get("thano.statement", ""),
        "thano.verified_run": version.run_id,
    }
    with (
        runtime.registry.build(version.name, tags=tags, params=parameters(training)) as build,
        tempfile.TemporaryDirectory(prefix="thano-model-") as folder,
    ):
        made = training.made(runtime, Path(folder) / "model", build, checkpoints=False)
        now, metrics = made.tags, made.metrics
        findings = [_rows_finding(training, runtime)]
        if CHOSEN_TAG in now:
            findings.append(Finding("tuned", version.tags.get(CHOSEN_TAG), now[CHOSEN_TAG], True))
        for name, then in version.metrics.items():
            value = metrics.get(name)
            findings.append(Finding(name, repr(then), "none" if value is None else repr(value), True))
        findings += [
            Finding(what, version.tags.get(tag), now[tag], True)
            for what, tag in (("weights", "thano.data_version"), ("predictions", "thano.predictions_digest"))
            if tag in now
        ]
        findings.append(
            Finding("base model", version.tags.get("thano.base_identity"), training.base.identity, False)
        )
        if isinstance(training, Training) and training.parent is not None:
            name = f"{training.parent.name} VERSION {training.parent.version}"
            findings.append(Finding("parent", version.tags.get("thano.parent"), name, False))
        findings += [
            Finding(what, version.tags.get(f"thano.{what}"), now[f"thano.{what}"], False)
            for what in ("device", "precision")
        ]
        findings += _libraries(version.tags.get("thano.libraries", ""), now["thano.libraries"])
        report = Report(version, findings, build.run_id)
        build.log_metrics({f"replay/{name}": value for name, value in metrics.items()})
        build.log_text("replay.json", json.dumps(report.table().to_pylist(), ensure_ascii=False, indent=1))
        build.client.set_tag(build.run_id, "thano.verification_result", report.sentence)
        build.client.set_tag(build.run_id, "thano.verification_equal", str(report.equal))
    return report


def _rows_finding(training: Training | Pretraining, runtime: Runtime) -> Finding:
    """Whether the snapshot still holds what its name says."""
    import duckdb

    path = training.training_set.snapshot(runtime.workspace)
    with duckdb.connect() as connection:
        found = runtime.warehouse.fingerprint(connection, training.training_set.rows_sql(path))
    return Finding("training rows", training.training_set.fingerprint, found, False)


def _libraries(then: str, now: str) -> list[Finding]:
    """A finding for each library, from lists as ``torch 2.13.0, numpy 2.4.1``."""
    before = dict(part.rsplit(" ", 1) for part in then.split(", ") if " " in part)
    current = dict(part.rsplit(" ", 1) for part in now.split(", ") if " " in part)
    return [Finding(name, before.get(name), text, False) for name, text in current.items()]
