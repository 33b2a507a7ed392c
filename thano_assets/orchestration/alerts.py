"""Alerts: who is told, and how, when a run that Dagster launched fails or a new version is not promoted.

``[alerts]`` of ``thano.toml`` names a webhook, an address of e-mail or a command. Runs of a terminal or
notebook have somebody who sees how they end, and are not told of again.
"""

from __future__ import annotations

import json
import shlex
import smtplib
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import dagster as dg

from thano_assets.assets.models import promotion
from thano_assets.errors import WorkspaceError
from thano_assets.graph import Graph, Node
from thano_assets.orchestration import records, run_tags
from thano_assets.planning.plan import too_old

if TYPE_CHECKING:
    from thano_assets.resources.settings import AlertSettings
    from thano_assets.resources.workspace import Workspace

FAILED_RUN, FAILED_CHECK, NOT_PROMOTED, OVERDUE = "failed run", "failed check", "not promoted", "overdue"
_LOOK_SECONDS = 15
_PATIENCE = 20.0  # seconds for a server or command


def sensors(graph: Graph, workspace: Workspace) -> list[dg.SensorDefinition]:
    """Sensors on the ends of runs and the ages of assets; none where ``thano.toml`` names nobody to tell."""
    if not workspace.settings.alerts.any:
        return []
    aging = [node for node in graph.nodes.values() if node.is_result and node.entry.option("fresh_within")]
    return [
        *([_age_sensor(aging, workspace)] if aging else []),
        _sensor(workspace, "alert_on_failure", dg.DagsterRunStatus.FAILURE, "Tells of runs that failed"),
        _sensor(
            workspace,
            "alert_on_checks",
            dg.DagsterRunStatus.SUCCESS,
            "Tells of failed checks and of versions that were not promoted in runs that succeeded",
        ),
    ]


def _sensor(workspace: Workspace, name: str, status: dg.DagsterRunStatus, what: str) -> dg.SensorDefinition:
    def evaluate(context: dg.RunStatusSensorContext) -> None:
        run = context.dagster_run
        # A person sees how a run of a terminal ends; what a job does is told of by the run that did it.
        own = run_tags.PROCESS in run.tags and run_tags.PARENT not in run.tags
        if own or context.instance.get_runs(dg.RunsFilter(tags={run_tags.PARENT: run.run_id}), limit=1):
            return
        alert = describe(context.instance, run, workspace)
        if alert is not None:
            send(alert, workspace.settings.alerts)

    return dg.run_status_sensor(
        status,
        name=name,
        minimum_interval_seconds=_LOOK_SECONDS,
        description=f"{what}, as [alerts] of thano.toml says.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )(evaluate)


def _age_sensor(nodes: Sequence[Node], workspace: Workspace) -> dg.SensorDefinition:
    """Tells once of each asset that has become older than its statement's ``fresh_within``."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        told: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
        late, problems = overdue(context.instance, nodes), []
        for name, (made, sentence) in late.items():
            if told.get(name) == made:
                continue
            try:
                send(
                    _alert(workspace, OVERDUE, [sentence], [name], f"assets/{name}"),
                    workspace.settings.alerts,
                )
            except WorkspaceError as error:  # the tick counts all the same: others have been told
                problems.append(str(error))
        context.update_cursor(json.dumps({name: made for name, (made, _) in late.items()}))
        sentences = [sentence for _, sentence in late.values()] or ["No asset is overdue."]
        return dg.SkipReason(" ".join([*sentences, *problems]))

    return dg.SensorDefinition(
        name="alert_on_age",
        evaluation_fn=evaluate,
        minimum_interval_seconds=_LOOK_SECONDS,
        description="Tells of assets older than their fresh_within, as [alerts] of thano.toml says.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )


def overdue(instance: dg.DagsterInstance, nodes: Sequence[Node]) -> dict[str, tuple[str, str]]:
    """Those of ``nodes`` that are older than their ``fresh_within``; one that was never made has no age.

    Returns:
        By name, when the asset was made, and a sentence that says so.
    """
    found = {}
    latest = records.read_records(instance, [node.key for node in nodes])
    for node in nodes:
        record, name = latest.get(node.key), "/".join(node.key)
        if record is not None and (sentence := too_old(node, record)) is not None:
            found[name] = (record.time.isoformat(), f"{name} is overdue: {sentence}.")
    return found


def describe(instance: dg.DagsterInstance, run: dg.DagsterRun, workspace: Workspace) -> dict[str, Any] | None:
    """What there is to tell of a run that ended; ``None`` where all is well.

    Returns:
        ``kind`` (``failed run``, ``failed check`` or ``not promoted``), ``text`` (one line for a person),
        ``reasons``, ``assets`` (keys with slashes), ``workspace``, ``run_id``, ``url`` and ``started_by``.
    """
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    failed = [
        found
        for record in records.records
        if (event := record.event_log_entry.dagster_event) is not None
        and not (found := event.asset_check_evaluation_data).passed
    ]
    if failed:
        kind = NOT_PROMOTED if all(one.check_name == promotion.CHECK for one in failed) else FAILED_CHECK
        reasons = [one.description or one.check_name for one in failed]
        assets = [one.asset_key.to_user_string() for one in failed]
    elif run.status is dg.DagsterRunStatus.FAILURE:
        kind = FAILED_RUN
        reasons = [run.tags.get(run_tags.ERROR) or _failure(instance, run)]
        assets = [key.to_user_string() for key in run.asset_selection or ()]
    else:
        return None
    return _alert(workspace, kind, reasons, assets, f"runs/{run.run_id}") | {
        "run_id": run.run_id,
        "started_by": run_tags.launched_by(run.tags),
    }


def _alert(
    workspace: Workspace, kind: str, reasons: list[str], assets: list[str], page: str
) -> dict[str, Any]:
    address = f"{workspace.settings.dagster.url.rstrip('/')}/{page}"
    return {
        "kind": kind,
        "text": f"{workspace.root.name}: {kind}: {' '.join(reasons)} {address}",
        "reasons": reasons,
        "assets": sorted(set(assets)),
        "workspace": workspace.root.name,
        "run_id": None,
        "url": address,
        "started_by": None,
    }


def _failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Why a run failed where no asset said it, such as a process that died."""
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.PIPELINE_FAILURE)
    for record in records.records:
        if (event := record.event_log_entry.dagster_event) is not None and event.message:
            return run_tags.shortened(event.message)
    return "The run failed."


def send(alert: dict[str, Any], settings: AlertSettings) -> None:
    """Tell everybody whom the settings name.

    Raises:
        WorkspaceError: somebody could not be told; all others were.
    """
    ways: list[tuple[str, Callable[[dict[str, Any], AlertSettings], None]]] = []
    if settings.webhook:
        ways.append(("webhook", _post))
    if settings.email:
        ways.append(("email", _mail))
    if settings.command:
        ways.append(("command", _call))
    problems = []
    for name, way in ways:
        try:
            way(alert, settings)
        except (OSError, ValueError, subprocess.SubprocessError, smtplib.SMTPException) as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
    if problems:
        raise WorkspaceError(
            f"An alert could not be delivered ({'; '.join(problems)}).",
            hint="Check [alerts] in thano.toml.",
        )


def _post(alert: dict[str, Any], settings: AlertSettings) -> None:
    request = urllib.request.Request(
        settings.webhook or "",
        data=json.dumps(alert, ensure_ascii=False).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=_PATIENCE).close()


def _mail(alert: dict[str, Any], settings: AlertSettings) -> None:
    server = urllib.parse.urlsplit(settings.smtp)
    message = EmailMessage()
    message["Subject"] = f"{alert['workspace']}: {alert['kind']}: {', '.join(alert['assets'])}"
    message["From"], message["To"] = settings.sender or settings.email, settings.email
    message.set_content("\n".join([*alert["reasons"], "", alert["url"], ""]))
    kind = smtplib.SMTP_SSL if server.scheme == "smtps" else smtplib.SMTP
    with kind(server.hostname or "localhost", server.port or 0, timeout=_PATIENCE) as connection:
        if server.username:
            if server.scheme != "smtps":
                connection.starttls()
            connection.login(
                urllib.parse.unquote(server.username), urllib.parse.unquote(server.password or "")
            )
        connection.send_message(message)


def _call(alert: dict[str, Any], settings: AlertSettings) -> None:
    subprocess.run(
        shlex.split(settings.command or ""),
        input=json.dumps(alert, ensure_ascii=False).encode(),
        timeout=_PATIENCE,
        check=True,
        stdout=subprocess.DEVNULL,
    )
