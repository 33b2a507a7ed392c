"""Models that were trained elsewhere: checked, converted where need be, registered as a version."""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path

from thano_assets.assets.models.training import kept_version
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.errors import ThanoError
from thano_assets.graph import Node
from thano_assets.learning.model_folder import Upload
from thano_assets.resources import resolved_base, uploads
from thano_assets.resources.model_version import ModelVersion
from thano_assets.sql.statements import UploadModel
from thano_assets.system import file_digest


def materialize(node: Node, statement: UploadModel, runtime: Runtime) -> Outcome:
    """Register the folder of UPLOAD MODEL as a version; it answers from then on.

    In an incremental run a version that was made from the very same files is not registered again.

    Raises:
        PathRefused: the path leads out of the folders that may be read.
        DataFileError: the folder holds no complete classifier of texts.
    """
    import pyarrow as pa

    started = time.perf_counter()
    try:
        upload = uploads.find(runtime.workspace, statement.path)
        fingerprint = upload.fingerprint()
        known = kept_version(node.name, fingerprint, runtime) if runtime.incremental else None
        if known is not None:
            version = runtime.registry.promote(known.name, known.version)
        else:
            version = _registered(node, statement, upload, fingerprint, runtime)
    except ThanoError as error:
        raise error.at(statement.source, statement.path_span.start, len(statement.path_span)) from None
    made = f"model {version.name}: version {version.version}"
    seconds = round(time.perf_counter() - started, 1)
    outcome = Outcome(
        data_version=version.data_version,
        summary=f"{made}, uploaded, {len(version.classes)} labels: {', '.join(version.classes[:8])}"
        if known is None
        else f"{made}, which holds the very same files",
        facts={
            "model version": version.version,
            "path": statement.path,
            "architecture": upload.architecture,
            "labels": ", ".join(version.classes[:50]),
            "files": "\n".join(file.name for file in upload.files),
            "longest text": version.tags.get("thano.max_length", ""),
            "seconds": seconds,
        },
        links={
            "MLflow run": runtime.registry.run_url(version.run_id),
            "MLflow model": runtime.registry.model_url(node.name, version.version),
        },
        result=pa.table(
            {
                "model": [version.name],
                "version": [version.version],
                "status": ["registered"],
                "architecture": [upload.architecture],
                "labels": [version.classes],
                "max_length": [int(version.tags["thano.max_length"])],
                "seconds": [seconds],
                "run_id": [version.run_id],
            }
        ),
        mlflow_run_id=version.run_id,
        details={
            "version": version.version,
            "fingerprint": fingerprint,
            "answers": version.data_version,
            "files": upload.digests(),
        },
    )
    if not upload.has_names:
        outcome.warn(
            runtime.progress,
            f"The labels of '{statement.path}' have no names: PREDICT answers with "
            f"{', '.join(upload.classes[:3])}. id2label in its config.json can name them.",
        )
    return outcome


def _registered(
    node: Node, statement: UploadModel, upload: Upload, fingerprint: str, runtime: Runtime
) -> ModelVersion:
    from thano_assets.learning.uploaded import adopt

    tags = {
        "thano.statement": statement.text.strip(),
        "thano.asset_key": "/".join(node.key),
        "thano.fingerprint": fingerprint,
        "thano.label_type": "VARCHAR",
        "thano.base": resolved_base.UPLOADED,
        "thano.base_source": f"{upload.architecture.upper()} trained elsewhere, from '{statement.path}'",
        "thano.base_revision": f"sha256:{fingerprint}",
        "thano.class_name": upload.architecture,
        "dagster.run_id": runtime.run_id or "",
    }
    params = {"path": statement.path, "architecture": upload.architecture}
    runtime.progress.message(f"Looking at {len(upload.files)} files of '{statement.path}'.")
    with tempfile.TemporaryDirectory(prefix="thano-model-") as folder:
        # Before there is a run in MLflow: what is no model leaves no trace there.
        model_dir = Path(folder) / "model"
        longest = adopt(upload, statement.path, model_dir)
        tags |= {"thano.data_version": _data_version(model_dir), "thano.max_length": str(longest)}
        with runtime.registry.build(node.name, tags=tags, params=params) as build:
            return build.register(
                model_dir, labels={"classes": upload.classes, "type": "VARCHAR"}, metrics={}, tags=tags
            )


def _data_version(folder: Path) -> str:
    """What stands for the version's answers: weights, tokenizer and labels, which may change alone."""
    lines = "".join(
        f"{file.name}:{file_digest(file)}\n" for file in sorted(folder.iterdir()) if file.is_file()
    )
    return hashlib.sha256(lines.encode()).hexdigest()[:32]
