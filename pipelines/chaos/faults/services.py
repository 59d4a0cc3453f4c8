"""Faults of links and services: cut, slow, throttled, locked, delivered twice, stopped."""

from __future__ import annotations

import sqlite3
import time

import msgspec

from pipelines.chaos.faults.fault import Act
from pipelines.chaos.injected import InjectedError
from pipelines.chaos.links import Link, LinkCondition
from pipelines.chaos.stage import Stage
from pipelines.chaos.world import FLEET


def degrade(link: str, condition: LinkCondition, name: str, low: float, high: float) -> Act:
    """Degrade the world's link ``broker`` or ``s3`` for ``low`` to ``high`` seconds."""

    def act(stage: Stage) -> None:
        seconds = stage.random_duration(low, high)
        stage.note(f"{name} for {seconds:.1f} s")
        found: Link = getattr(stage.world, link)
        with found.degraded(condition):
            time.sleep(seconds)

    return act


def cut_broker(stage: Stage) -> None:
    """Break all connections to the broker, four times."""
    for _ in range(4):
        stage.note("all connections to the broker cut")
        stage.world.broker.drop()
        time.sleep(stage.random_duration(0.3, 1.0))


def inject(rule: InjectedError, high: float = 4.0) -> Act:
    """Inject an error into the tasks' AWS calls for 1 to ``high`` seconds."""

    def act(stage: Stage) -> None:
        seconds = stage.random_duration(1, high)
        what = "repeats" if rule.repeat else rule.code
        stage.note(f"{rule.service} {what} ({rule.share:.0%}) for {seconds:.1f} s")
        with stage.world.errors.failing(rule):
            time.sleep(seconds)

    return act


def lock_mlflow(stage: Stage) -> None:
    """Lock MLflow's database for 2 to 6 seconds."""
    seconds = stage.random_duration(2, 6)
    stage.note(f"MLflow's store is locked for {seconds:.1f} s")
    store = sqlite3.connect(stage.world.home.root / "mlflow.db", isolation_level=None, timeout=5)
    try:
        store.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        store.execute("ROLLBACK")
    except sqlite3.OperationalError:
        stage.note("(MLflow was writing, so its store could not be locked)")
    finally:
        store.close()


def redeliver_callback(stage: Stage) -> None:
    """Deliver the callback's message twice more: SQS delivers at least once."""
    stage.note("the callback message comes again, twice")
    message = {
        "token": stage.run.removeprefix("run-"),
        "pipelineExecutionArn": stage.pipeline,
        "status": "Executing",
        "arguments": {
            "app": stage.world.app.digest(),
            "app_name": stage.world.app.name,
            "fleet": FLEET,
            "num_rounds": 99,
            "min_devices": 1,
        },
    }
    for _ in range(2):
        stage.world.clients.sqs.send_message(
            QueueUrl=stage.world.cloud.deployment.queue_url,
            MessageBody=msgspec.json.encode(message).decode(),
        )


def stop_pipeline(stage: Stage) -> None:
    """Stop the pipeline execution."""
    time.sleep(stage.random_duration(0, 4))
    stage.note("the pipeline is stopped")
    stage.world.clients.sagemaker.stop_pipeline_execution(PipelineExecutionArn=stage.pipeline)
