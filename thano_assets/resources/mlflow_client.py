"""Reading MLflow's registry through MLflow itself: the slow way, for a server and for other schemas.

The functions answer as those of :mod:`.mlflow_reader` do, and import MLflow only when it has been asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .mlflow_reader import CURVE, VERIFICATION_TAG, RunRow, VersionRow

if TYPE_CHECKING:
    from mlflow import MlflowClient


def models(client: MlflowClient) -> list[str]:
    names: list[str] = []
    token = None
    while True:
        page = client.search_registered_models(page_token=token)
        names += [model.name for model in page]
        token = page.token
        if not token:
            return names


def versions(client: MlflowClient, name: str, version: int | None, alias: str | None) -> list[VersionRow]:
    """The same rows as :func:`.mlflow_reader.versions`, through MLflow."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    rows = []
    mark = '"' if "'" in name else "'"  # MLflow's filters know no escape
    wanted = f"name = {mark}{name}{mark}" if mark not in name else None
    for found in client.search_model_versions(wanted):
        if found.name != name:
            continue
        number = int(found.version)
        if version is not None and number != version:
            continue
        if alias is not None and str(aliases.get(alias)) != str(found.version):
            continue
        run = client.get_run(found.run_id) if found.run_id else None
        rows.append(
            VersionRow(
                name=found.name,
                version=number,
                run_id=found.run_id,
                created_ms=int(found.creation_timestamp),
                description=found.description,
                location=client.get_model_version_download_uri(name, found.version),
                aliases=sorted(one for one, at in aliases.items() if str(at) == str(found.version)),
                tags=dict(found.tags),
                metrics=dict(run.data.metrics) if run else {},
                params=dict(run.data.params) if run else {},
            )
        )
    return sorted(rows, key=lambda row: row.version)


def newest_training(client: MlflowClient, name: str) -> RunRow | None:
    """The same row as :func:`.mlflow_reader.newest_training`, through MLflow."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return None
    for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"]):
        if VERIFICATION_TAG in run.data.tags or run.data.tags.get("thano.model") != name:
            continue
        points = [
            (key, metric.step, metric.value, metric.timestamp)
            for key in CURVE
            if key in run.data.metrics
            for metric in client.get_metric_history(run.info.run_id, key)
        ]
        return RunRow(run.info.run_id, run.info.status, int(run.info.start_time), points)
    return None
