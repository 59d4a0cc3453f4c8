"""Runs an app on a local cloud: pipeline, MQTT and certificates, processes of their own."""

from __future__ import annotations

import msgspec

from compatibility.our_engine import weights
from compatibility.outcome import Outcome
from edge.training.app_bundle import FlowerApp
from fl_runtime.run.cohorts import Cohort, Member
from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import cohorts_key, model_key
from pipelines.desk import wiring
from pipelines.local.cloud import LocalCloud
from pipelines.local.federate import Progress, federate
from pipelines.run.option_table import RunOptions
from pipelines.run.plan import plan


def run(cloud: LocalCloud, app: FlowerApp) -> tuple[Outcome, list[Member]]:
    """Run an app on a cloud that the environment leads to; returns its nodes in their order too.

    Apps of as many devices share a fleet: to enrol one takes longer than most runs.
    """
    wanted = plan(app, RunOptions(fleet=f"compatibility-{app.devices}"))
    clients, runner = wiring.fleet_clients(), wiring.runner(cloud.deployment)
    report = federate(cloud, clients, runner, wanted, Progress()).report
    if report.status != "Succeeded":
        raise AssertionError(f"{report.run_id} {report.status}: {report.reason}")
    objects = wiring.objects(cloud.deployment)
    cohorts = msgspec.json.decode(objects.get(cohorts_key(report.run_id)), type=list[Cohort])
    try:
        model = weights(objects.get(model_key(report.run_id, "model.safetensors")))
    except ObjectMissing:
        model = {}
    outcome = Outcome(
        model=model,
        train={record.round: record.train for record in report.rounds},
        evaluate={record.round: record.evaluate for record in report.rounds},
        server={record.round: record.server for record in report.rounds},
        tables=report.tables,
    )
    return outcome, [member for cohort in cohorts for member in cohort.members]
