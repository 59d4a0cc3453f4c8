"""Journeys through the whole: a run, its identity chain, approval, schedules, failures, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from support.commands import asked, complaint, mledgeops
from support.paths import APPS, ROOT
from support.waiting import alive, children, until

from edge.protocol.records import decode_records, digest
from fl_runtime.run.aws import DynamoReplies, S3Objects, client
from fl_runtime.run.keys import model_key, update_key
from pipelines.cli.commands.runs.schedules import expression_of
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import Home

DIGITS = str(APPS / "digits")


def test_a_run_ends_with_a_registered_model(report: dict) -> None:
    assert report["status"] == "Succeeded"
    assert [r["round"] for r in report["rounds"]] == [1, 2]
    for record in report["rounds"]:
        assert record["participants"] == 3
        assert record["failures"] == {}
        assert set(record["seconds"]) >= {"total", "device", "overhead"}
        assert record["bytes"]["up"] > 3 * 2560
        assert record["evaluate"].keys() == {"loss", "accuracy"}
    assert report["rounds"][1]["evaluate"]["accuracy"] > 0.8
    assert report["approval"] == "PendingManualApproval"
    assert report["model_version"] == "digits/1"


def test_the_evidence_is_in_both_registries(report: dict, reached: LocalCloud) -> None:
    from mlflow import MlflowClient

    from registry.sagemaker_registry import SageMakerRegistry

    registry = SageMakerRegistry(client("sagemaker"))
    package, card = (
        registry.get(report["model_package_arn"]),
        json.loads(registry.card(report["model_package_arn"])),
    )
    bucket, _, key = package.metadata["mledgeops.model_card"].removeprefix("s3://").partition("/")
    html = S3Objects(client("s3"), bucket).get(key).decode()
    assert (
        html
        == Path(
            MlflowClient().download_artifacts(report["mlflow_run_id"], "evidence/card.html")
        ).read_text()
    )
    assert "The fleet runs no earlier version" in html
    assert (
        card["evaluation_details"][0]["metadata"]["evidence"]
        == package.metadata["mledgeops.model_card"]
    )
    assert (
        package.metadata["mledgeops.checks"]
        == MlflowClient().get_model_version("digits", "1").tags["mledgeops.checks"]
        == "passed"
    )


def test_unchanged_weights_are_downloaded_once(report: dict) -> None:
    """Round 2 trains on what round 1 evaluated: only its own evaluation downloads anything."""
    first, second = (record["bytes"]["down"] for record in report["rounds"])
    assert second == pytest.approx(first / 2, rel=0.05)


def test_every_name_leads_to_every_other(report: dict, reached: LocalCloud) -> None:
    """Pipeline execution -> state machine -> run -> round -> device's update digest, and back."""
    from mlflow import MlflowClient

    sagemaker, steps, mlflow = client("sagemaker"), client("stepfunctions"), MlflowClient()
    listed = sagemaker.list_pipeline_execution_steps(
        PipelineExecutionArn=report["pipeline_execution_arn"]
    )["PipelineExecutionSteps"]
    by_name = {step["StepName"]: step for step in listed}
    token = by_name["FederatedRun"]["Metadata"]["Callback"]["CallbackToken"]
    execution = steps.describe_execution(executionArn=report["execution_arn"])
    assert json.loads(execution["input"]) == {"run": report["run_id"], "token": token}
    assert (execution["name"], execution["status"], report["run_id"]) == (
        token,
        "SUCCEEDED",
        f"run-{token}",
    )

    run = mlflow.get_run(report["mlflow_run_id"])
    assert run.data.tags["mledgeops.run_id"] == report["run_id"]
    assert run.data.tags["mledgeops.pipeline_execution_arn"] == report["pipeline_execution_arn"]
    assert run.info.status == "FINISHED"
    assert [
        m.value for m in mlflow.get_metric_history(report["mlflow_run_id"], "evaluate.accuracy")
    ] == [r["evaluate"]["accuracy"] for r in report["rounds"]]

    table = json.loads(
        Path(mlflow.download_artifacts(report["mlflow_run_id"], "devices.json")).read_text()
    )
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    trained = [row for row in rows if row["kind"] == "train"]
    assert len(trained) == 6 and len(rows) == 12
    objects = S3Objects(client("s3"), reached.deployment.bucket)
    for row in trained:
        blob = objects.get(update_key(report["run_id"], row["phase"], row["device"]))
        assert digest(blob) == row["digest"], "the device's update is the one MLflow names"
        assert decode_records(blob).arrays["arrays"]["0"].shape == (64, 10)
    stored = {
        reply.device
        for cohort in ("c0000", "c0001")
        for reply in DynamoReplies(client("dynamodb"), reached.deployment.replies_table).read(
            f"{report['run_id']}#{trained[0]['phase']}#{cohort}"
        )
    }
    assert stored == {row["device"] for row in trained}

    package = sagemaker.describe_model_package(ModelPackageName=report["model_package_arn"])
    metadata = package["CustomerMetadataProperties"]
    assert metadata["mledgeops.run_id"] == report["run_id"]
    assert metadata["mlflow.run_id"] == report["mlflow_run_id"]
    version = mlflow.get_model_version(
        metadata["mlflow.model_name"], metadata["mlflow.model_version"]
    )
    assert version.tags["sagemaker.model_package_arn"] == report["model_package_arn"]
    weights = objects.get(model_key(report["run_id"], "model.safetensors"))
    assert (
        digest(weights)
        == metadata["mledgeops.model_digest"]
        == version.tags["mledgeops.model_digest"]
    )
    statistics = package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    quality = json.loads(objects.get(statistics.split("/", 3)[3]))
    assert (
        quality["multiclass_classification_metrics"]["accuracy"]["value"]
        == report["rounds"][-1]["evaluate"]["accuracy"]
    )


def test_the_logged_model_loads_without_us(report: dict, reached: LocalCloud) -> None:
    import mlflow
    from sklearn.datasets import load_digits

    model = mlflow.pyfunc.load_model("models:/digits/1")
    images, labels = load_digits(return_X_y=True)
    assert model.metadata.signature is not None
    assert (model.predict(images / 16.0) == labels).mean() > 0.8


def test_runs_show_logs_and_models_tell_of_it(report: dict, home: Path) -> None:
    runs = asked("runs", home=home)["runs"]
    assert [r["status"] for r in runs if r["run_id"] == report["run_id"]] == ["Succeeded"]
    shown = asked("show", report["run_id"], home=home)
    assert [record["evaluate.accuracy"] for record in shown["rounds"]] == [
        r["evaluate"]["accuracy"] for r in report["rounds"]
    ]
    assert "accuracy" in mledgeops("show", report["run_id"], home=home).stdout
    logs = asked("logs", report["run_id"], home=home)
    assert len(logs) == 3, "a server and two proxies"
    events = [
        json.loads(line)["event"]
        for lines in logs.values()
        for line in lines
        if line.startswith("{")
    ]
    assert events.count("round") == 2
    models = asked("models", home=home)["models"]
    assert [m["model_package_arn"] for m in models if m["run"] == report["run_id"]] == [
        report["model_package_arn"]
    ]
    for command in ("show", "logs"):
        assert "run" in complaint(command, "run-absent", home=home)


def test_logs_are_in_cloudwatch_as_json(report: dict, reached: LocalCloud) -> None:
    logs = client("logs")
    group = reached.deployment.log_group("server")
    streams = [
        s["logStreamName"] for s in logs.describe_log_streams(logGroupName=group)["logStreams"]
    ]
    lines = [
        e["message"]
        for s in streams
        for e in logs.get_log_events(logGroupName=group, logStreamName=s)["events"]
    ]
    rounds = [json.loads(line) for line in lines if '"event": "round"' in line]
    assert {r["round"] for r in rounds if r["run"] == report["run_id"]} == {1, 2}


def test_approval_moves_the_alias_and_reaches_the_devices(approved: dict, home: Path) -> None:
    assert "empty" in complaint("approve", "digits/1", "--reason", " ", home=home)
    assert "no model version" in complaint("approve", "77", "--reason", "x", home=home)
    assert (approved["approval"], approved["champion"]) == ("Approved", True)
    rollout = approved["rollout"]
    assert (rollout["state"], rollout["switched"], rollout["failures"], rollout["waves"]) == (
        "Succeeded",
        3,
        {},
        [1, 1, 1],
    )
    for path in sorted((home / "devices" / "digits").glob("*/models/active.json")):
        active = json.loads(path.read_text())["manifest"]
        assert active["model_version"] == "digits/1"
        assert digest((path.parent / active["digest"]).read_bytes()) == active["digest"]
    assert "already" in complaint("approve", "digits/1", "--reason", "again", home=home)


def test_a_worse_model_is_refused_with_the_numbers_and_recorded(refused: dict, home: Path) -> None:
    failed = refused
    assert failed["status"] == "NotBetter"
    assert "the minimum is 0.999" in failed["reason"]
    assert failed["model_package_arn"] == ""
    shown = asked("show", failed["run_id"], home=home)
    assert shown["status"] == "NotBetter"
    assert "0.999" in shown["reason"]


def test_a_device_that_raises_is_counted_and_the_run_goes_on(
    report: dict, approved: dict, home: Path
) -> None:
    assert approved, "there is a champion to beat"
    done = mledgeops(
        "run",
        DIGITS,
        "--devices",
        "3",
        "--rounds",
        "1",
        "--devices-per-proxy",
        "0",
        "--set",
        "broken-partition=1",
        "--fleet",
        "mixed",
        "--minimum-score=-1",
        "--json",
        home=home,
        check=None,
    )
    result = json.loads(done.stdout)
    assert result["rounds"][0]["participants"] == 2
    assert result["rounds"][0]["failures"] == {"app-error": 1}
    assert result["model_version"] == "", (
        "two of three devices and one round do not beat the champion"
    )
    assert "the champion has" in result["reason"]


def test_when_every_device_raises_the_reason_is_in_mlflow_and_the_pipeline(
    broken: dict, reached: LocalCloud
) -> None:
    from mlflow import MlflowClient

    failed = broken
    assert failed["status"] == "Failed"
    assert "the sensor of this device is broken" in failed["reason"]
    run = MlflowClient().get_run(failed["mlflow_run_id"])
    assert (run.info.status, run.data.tags["mledgeops.reason"]) == ("FAILED", failed["reason"])
    described = client("sagemaker").describe_pipeline_execution(
        PipelineExecutionArn=failed["pipeline_execution_arn"]
    )
    assert described["PipelineExecutionStatus"] == "Failed"
    assert (
        client("stepfunctions").describe_execution(executionArn=failed["execution_arn"])["status"]
        == "FAILED"
    )


def test_too_few_devices_end_the_run_with_the_count(home: Path, reached: LocalCloud) -> None:
    """As a schedule would: the pipeline is started without the devices."""
    from edge.training.app_bundle import load_app
    from pipelines.desk.wiring import run_clients
    from pipelines.run.option_table import RunOptions
    from pipelines.run.plan import plan
    from pipelines.run.runner import Runner

    runner = Runner(reached.deployment, run_clients(reached.deployment))
    started = runner.start(
        plan(load_app(APPS / "digits"), RunOptions(devices=2, fleet="nobody", deadline_seconds=2))
    )
    list(runner.follow(started))
    ended = runner.report(started)
    assert ended.status == "Failed"
    assert "0 of the 2 devices" in ended.reason


def test_a_scheduled_run_trains_on_the_devices_that_stand(tmp_path: Path) -> None:
    """Schedules are added, listed, fire, train on the devices that stand beside a run of the user's
    own, and are removed.
    """
    mledgeops("local", "up", "--app", DIGITS, "--devices", "2", home=tmp_path)
    try:
        soon = time.strftime("at(%Y-%m-%dT%H:%M:%S)", time.gmtime(time.time() + 1))
        mledgeops(
            "schedule",
            "add",
            "soon",
            "--cron",
            soon,
            "--app",
            DIGITS,
            "--rounds",
            "1",
            "--devices",
            "2",
            home=tmp_path,
        )
        added = asked(
            "schedule", "add", "nightly", "--cron", "0 3 * * *", "--app", DIGITS, home=tmp_path
        )
        assert added["expression"] == "cron(0 3 * * ? *)"
        assert [at[11:] for at in added["next"]] == ["03:00:00+00:00"] * 3
        assert {"nightly", "soon"} <= {
            s["name"] for s in asked("schedule", "list", home=tmp_path)["schedules"]
        }
        mledgeops("schedule", "remove", "nightly", home=tmp_path)
        assert "no schedule" in complaint("schedule", "remove", "nightly", home=tmp_path)
        never = complaint(
            "schedule", "add", "x", "--cron", "0 0 31 2 *", "--app", DIGITS, home=tmp_path
        )
        assert "would never fire" in never
        # A run of the user's own takes its turn on the same devices.
        own = json.loads(
            mledgeops(
                "run",
                DIGITS,
                "--devices",
                "2",
                "--rounds",
                "2",
                "--devices-per-proxy",
                "0",
                "--queue",
                "--json",
                home=tmp_path,
            ).stdout
        )
        assert own["status"] == "Succeeded"

        def ended() -> list[str]:
            return [
                run["run_id"]
                for run in asked("runs", home=tmp_path)["runs"]
                if run["status"] == "Succeeded" and run["rounds"] == 1
            ]

        until(ended, 90)
    finally:
        mledgeops("local", "down", "--stop-runs", home=tmp_path)
    assert "needs --app" in complaint("local", "up", "--devices", "2", home=tmp_path)


def test_a_run_can_be_stopped_from_elsewhere(report: dict, home: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pipelines.cli",
            "run",
            DIGITS,
            "--devices",
            "2",
            "--rounds",
            "500",
            "--devices-per-proxy",
            "0",
            "--fleet",
            "long",
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MLEDGEOPS_HOME": str(home)},
    )
    try:

        def under_way() -> list[str]:
            runs = asked("runs", home=home)["runs"]
            return [
                run["run_id"] for run in runs if run["status"] == "Running" and run["rounds"] == 500
            ]

        (run,) = until(under_way, 60)
        mledgeops("stop", run, home=home)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, json.loads(out)["status"], json.loads(out)["run_id"]) == (
        1,
        "Stopped",
        run,
    ), err
    assert asked("show", run, home=home)["status"] == "Stopped"
    assert "not under way" in complaint("stop", run, home=home)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0 3 * * *", "cron(0 3 * * ? *)"),
        ("30 4 1 * *", "cron(30 4 1 * ? *)"),
        ("0 3 * * 1-5", "cron(0 3 ? * 2-6 *)"),
        ("0 3 * * 0", "cron(0 3 ? * 1 *)"),
        ("0 3 * * ? *", "cron(0 3 * * ? *)"),
        ("rate(5 minutes)", "rate(5 minutes)"),
        ("at(2027-01-01T00:00:00)", "at(2027-01-01T00:00:00)"),
    ],
)
def test_cron_is_understood_as_unix_and_as_aws_write_it(given: str, expected: str) -> None:
    assert expression_of(given) == expected


def test_ctrl_c_stops_the_run_in_order_and_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pipelines.cli",
            "run",
            DIGITS,
            "--devices",
            "2",
            "--rounds",
            "500",
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MLEDGEOPS_HOME": str(tmp_path)},
    )
    try:
        until(lambda: list(tmp_path.glob("logs/run-*-server.log")), 60)
        until(
            lambda: any(
                '"event": "round"' in f.read_text() for f in tmp_path.glob("logs/run-*-server.log")
            ),
            60,
        )
        pids = children(process.pid)
        assert len(pids) > 4
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    stopped = json.loads(out)
    assert stopped["status"] == "Stopped"
    until(lambda: not any(alive(pid) for pid in pids), 20)
    shown = json.loads(mledgeops("show", stopped["run_id"], "--json", home=tmp_path).stdout)
    assert shown["status"] == "Stopped"


@pytest.mark.parametrize("when", [0.3, 3.0])
def test_ctrl_c_at_any_moment_leaves_nothing(tmp_path: Path, when: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "run", DIGITS, "--devices", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MLEDGEOPS_HOME": str(tmp_path)},
    )
    time.sleep(when)
    pids = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    until(lambda: not any(alive(pid) for pid in pids), 30)
    assert Home(tmp_path).info() is None
    assert "Traceback" not in err or process.returncode == -signal.SIGINT


def test_reports_are_plain_json(report: dict) -> None:
    assert msgspec.json.decode(msgspec.json.encode(report)) == report


def test_a_run_whose_server_was_killed_and_that_was_then_continued_ends_with_the_same_model(
    report: dict, home: Path, cloud: LocalCloud
) -> None:
    import psutil

    arguments = [
        DIGITS,
        "--devices",
        "3",
        "--strategy",
        "FedAdam",
        "--devices-per-proxy",
        "2",
        "--minimum-score=-1",
        "--json",
    ]
    undisturbed = json.loads(
        mledgeops(
            "run", *arguments, "--rounds", "5", "--fleet", "calm", home=home, check=None
        ).stdout
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pipelines.cli",
            "run",
            *arguments,
            "--rounds",
            "4",
            "--fleet",
            "rough",
            "--set",
            "local-steps=31",
            "--set",
            "local-steps=30",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MLEDGEOPS_HOME": str(home)},
    )

    def server() -> psutil.Process | None:
        found = [
            c
            for c in psutil.Process(cloud.info.pid).children(recursive=True)
            if "fl_runtime.server" in c.cmdline()
        ]
        return found[0] if found else None

    def under_way() -> Path | None:
        newest = max(home.glob("logs/run-*-server.log"), key=lambda f: f.stat().st_mtime)
        if undisturbed["run_id"] in newest.name:
            return None
        return (
            newest
            if newest.read_text().count('"event": "round"') >= 2 and server() is not None
            else None
        )

    try:
        log = until(under_way, 60)
        server().kill()  # type: ignore[union-attr]
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    killed = json.loads(out)
    assert '"event": "resumed"' in log.read_text(), err
    assert len(killed["rounds"]) == 4
    resume = ("run", "--resume", killed["run_id"])
    assert "has finished 4 rounds: give --rounds above that" in complaint(*resume, home=home)
    assert "leave --seed out" in complaint(*resume, "--seed", "7", home=home)
    assert "There is no run run-nobody" in complaint("run", "--resume", "run-nobody", home=home)
    disturbed = json.loads(
        mledgeops(*resume, "--rounds", "5", "--json", home=home, check=None).stdout
    )
    assert [r["evaluate"] for r in disturbed["rounds"]] == [
        r["evaluate"] for r in undisturbed["rounds"]
    ], "to the last bit"
    assert len(disturbed["rounds"]) == 5
    shown = asked("show", disturbed["run_id"], home=home)
    assert [record["evaluate.accuracy"] for record in shown["rounds"]] == [
        r["evaluate"]["accuracy"] for r in undisturbed["rounds"]
    ]
