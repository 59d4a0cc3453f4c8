"""What commands show: runs, logs, models, lineage, rollouts, repairs, devices, measures, faults."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fakes.runs import row

from edge.protocol.messages import Heartbeat
from fl_runtime.run.devices import DeviceStatus
from fl_runtime.run.records import RoundBytes, RoundRecord, RoundSeconds
from pipelines.chaos.suite import Verdict
from pipelines.cli.commands.measure.bench import chosen_parts
from pipelines.cli.commands.measure.bench_registry import CountedClient
from pipelines.cli.commands.measure.bench_run import (
    memory_measures,
    role_of,
    round_measures,
    run_command,
    succeeded,
)
from pipelines.cli.commands.measure.bench_scale import APP, by_size
from pipelines.cli.commands.measure.chaos import suite_text, verdict_text
from pipelines.cli.commands.measure.measure import Measure
from pipelines.cli.commands.operate import synth
from pipelines.cli.commands.operate.cloud import cloud_text
from pipelines.cli.commands.operate.deploy import changes_text, parameters_of
from pipelines.cli.commands.registry import trace
from pipelines.cli.commands.registry.models import checks_text, models_text
from pipelines.cli.commands.registry.policy import policy_text
from pipelines.cli.commands.registry.reconcile import AGREE, repairs_text
from pipelines.cli.commands.registry.rollout_text import rollout_row, rollout_text
from pipelines.cli.commands.runs import app_check, following
from pipelines.cli.commands.runs.check import check_text
from pipelines.cli.commands.runs.history import as_json, run_text, runs_text
from pipelines.cli.commands.runs.logs import log_text, raw_by_task
from pipelines.cli.commands.runs.report_text import report_text, round_text
from pipelines.cli.commands.runs.schedules import expression_of, schedules_in
from pipelines.desk.fleet_rows import device_row
from pipelines.desk.lineage import trace_text
from pipelines.desk.run_logs import parse_line
from pipelines.desk.runs import RunResults, RunSummary
from pipelines.errors import UsageError
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import CloudInfo, Home
from pipelines.run.report import RunReport
from registry.evidence.prechecks import Check
from registry.model_version import Version
from registry.reconcile.model import Repair

SUMMARY = RunSummary(
    run_id="run-1",
    app="digits",
    status="NotBetter",
    devices=3,
    rounds=2,
    metric="rmse",
    value=0.25,
    seconds=65.0,
    started=0.0,
    mlflow_run_id="m",
    pipeline_execution_arn="arn",
    reason="The model's rmse is 0.25; the champion has 0.2.",
)


def test_runs_show_metric_value_and_duration() -> None:
    last = runs_text([SUMMARY]).splitlines()[-1]
    for text in ("run-1", "NotBetter", "rmse", "0.25", "1 min 5 s", "1970-01-01"):
        assert text in last


def test_one_run_shows_its_rounds_and_its_reason() -> None:
    left = RunResults(tables={"ages": {"age": [40], "n": [2]}}, files={"a.png": 7})
    text = run_text(SUMMARY, [{"round": 1, "evaluate.rmse": 0.5, "participants": 3}], left)
    assert "ages\nage" in text
    assert "a.png" in text
    assert "the champion has 0.2" in text
    assert "evaluate.rmse" in text
    values = as_json(SUMMARY)
    assert (values["devices"], values["value"], values["seconds"]) == (3, 0.25, 65.0)


def test_a_log_line_has_time_level_task_and_message() -> None:
    raw = json.dumps({"time": 0.0, "level": "WARNING", "event": "late", "seconds": 3})
    line = parse_line("server", raw)
    assert log_text(line).split() == [
        "1970-01-01T00:00:00+00:00",
        "WARNING",
        "server",
        "late",
        "seconds=3",
    ]
    assert log_text(parse_line("server", "  boom")).split() == ["server", "boom"]
    assert raw_by_task([line, parse_line("proxy", "x")]) == {"server": [raw], "proxy": ["x"]}


def version(**changes: Any) -> Version:
    fields: dict[str, Any] = {
        "name": "digits",
        "version": "1",
        "run": "run-1",
        "mlflow_run_id": "m",
        "model_package_arn": "arn",
        "approval": "Approved",
        "score": -0.25,
        "model_digest": "d",
        "champion": True,
        "created_at": 0.0,
        "metric": "rmse",
        "value": 0.25,
    }
    return Version(**{**fields, **changes})


def test_models_show_the_metric_as_it_is_and_not_its_score() -> None:
    last = models_text([version(checks="passed")]).splitlines()[-1]
    assert last.split() == [
        "digits",
        "1",
        "Approved",
        "champion",
        "rmse",
        "0.25",
        "passed",
        "run-1",
    ]
    assert "-0.25" not in last


def test_prechecks_and_policy_read_as_tables() -> None:
    checks = [Check(name="drift", passed=False, message="moved")]
    assert "FAIL  drift" in checks_text(checks)
    policy = {"gates": {"drift": 0.2}, "rollout": {"waves": (0.1, 1.0)}}
    assert policy_text(policy).splitlines() == [
        "[gates]",
        "drift = 0.2",
        "[rollout]",
        "waves = [0.1, 1.0]",
    ]


def lineage() -> dict[str, Any]:
    updates = [
        {"device": f"d-{n}", "phase": "p1", "status": "ok", "code": "", "digest": "a" * 64}
        for n in range(3)
    ]
    failed = {**updates[0], "device": "d-9", "status": "error", "code": "app-error"}
    wave = {"jobs": ["job-1"], "devices": ["d-1"]}
    rollout = {
        "rollout": "digits-1",
        "state": "RolledBack",
        "switched": 1,
        "why": "d-1 failed",
        "failures": {"d-1": "no space"},
        "waves": [wave],
        "back": wave,
    }
    decision = {"what": "approved", "at": 0.0, "who": "me", "why": "good"}
    return {
        "pipeline_execution_arn": "arn:p",
        "execution_arn": "arn:e",
        "run_id": "run-1",
        "status": "Succeeded",
        "app": "digits",
        "app_digest": "b" * 64,
        "fleet": "digits",
        "mlflow_run_id": "m",
        "rounds": [{"round": 1, "updates": [*updates, failed]}],
        "versions": [
            {
                "model_version": "digits/1",
                "approval": "Approved",
                "champion": True,
                "model_digest": "c",
                "model_package_arn": "arn:m",
                "model_card": "s3://card",
                "checks": "",
                "decisions": [decision],
                "rollouts": [rollout],
            }
        ],
    }


def test_a_lineage_counts_devices_unless_all_are_asked_for() -> None:
    assert trace.trace_text is trace_text, "the command shows what a notebook shows"
    summary, everything = (trace_text(lineage(), every_device=every) for every in (False, True))
    assert "p1  1 error app-error, 3 ok" in summary
    assert "d-2" not in summary
    assert "d-2  p1  ok aaaaaaaaaaaa" in everything
    for text in (summary, everything):
        assert "version digits/1  Approved, champion" in text
        assert "canary  job-1" in text
        assert "d-1  no space" in text


def test_a_rollout_reads_in_two_lines_and_its_failures() -> None:
    rollout: Any = SimpleNamespace(
        fleet="digits",
        number=1,
        model_version="digits/1",
        state="RolledBack",
        by="me",
        reason="good",
        why="a device failed",
        waves=[SimpleNamespace(devices=["d-1"], jobs=["job-1"])],
        switched=0,
        waiting=0,
        failures={"d-1": "no space"},
        started_at=0.0,
        ended_at=5.0,
    )
    assert rollout_text(rollout).splitlines() == [
        "rollout 1 of digits/1 to fleet digits: RolledBack in 5 s",
        "  asked 1 devices: 0 switched, 1 refused, 0 have not answered",
        "  a device failed",
        "    d-1: no space",
    ]
    assert rollout_row(rollout)["jobs"] == ["job-1"]


def test_repairs_say_what_was_done_and_what_was_not() -> None:
    item = Repair(act="register", subject="arn", value="", why="it has no version")
    assert repairs_text([], [], done=True) == AGREE
    assert repairs_text([item], [], done=False).endswith("nothing was changed")
    text = repairs_text([item], [(item, "no run")], done=True)
    assert "0 repaired\nnot done: register arn: no run\nreject a package" in text


class IotData:
    class exceptions:  # as boto3 names it
        class ResourceNotFoundException(Exception):
            pass

    def get_thing_shadow(self, thingName: str) -> dict:
        if thingName == "new":
            raise self.exceptions.ResourceNotFoundException
        shadow = {
            "state": {"reported": {"model": {"version": "digits/1"}}},
            "metadata": {"reported": {"model": {"version": {"timestamp": 0}}}},
        }
        return {"payload": io.BytesIO(json.dumps(shadow).encode())}


def status(device: str, heartbeat: Heartbeat | None) -> DeviceStatus:
    return DeviceStatus(fleet="f", device=device, last_seen=0.0, heartbeat=heartbeat)


def test_a_device_is_shown_by_its_heartbeat_and_an_offline_one_by_its_shadow() -> None:
    online = device_row(
        status("d", Heartbeat(state="idle", model="digits/2", since=0.0)), IotData()
    )
    assert (online["model_version"], online["state"]) == ("digits/2", "idle")
    offline = device_row(status("d", Heartbeat(state="offline")), IotData())
    assert offline["model_version"] == "digits/1"
    assert device_row(status("new", None), IotData())["state"] == "malformed heartbeat"
    assert "update the agent" in online["left_out"], "it does not say that it takes our orders"
    assert offline["left_out"] == ""


@pytest.mark.parametrize(
    ("given", "expression"),
    [
        ("0 3 * * *", "cron(0 3 * * ? *)"),
        ("0 3 * * 0", "cron(0 3 ? * 1 *)"),
        ("0 3 1 * *", "cron(0 3 1 * ? *)"),
        ("rate(5 minutes)", "rate(5 minutes)"),
        ("0 3 * * ? 2030", "cron(0 3 * * ? 2030)"),
    ],
)
def test_a_unix_cron_becomes_a_schedulers(given: str, expression: str) -> None:
    assert expression_of(given) == expression


class Scheduler:
    """EventBridge Scheduler's client with one schedule, added at noon."""

    def __init__(self, expression: str, **given: object) -> None:
        self.expression, self.given = expression, {"pipeline": "p", "parameters": {}, **given}

    def get_paginator(self, operation: str) -> Any:
        pages = [{"Schedules": [{"Name": "nightly"}]}]
        return SimpleNamespace(paginate=lambda **_: pages)

    def get_schedule(self, Name: str, GroupName: str) -> dict[str, Any]:  # boto3's
        return {
            "Name": Name,
            "ScheduleExpression": self.expression,
            "State": "ENABLED",
            "Target": {"Input": json.dumps(self.given)},
            "CreationDate": NOON,
        }


NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("hours", "started", "given", "missed"),
    [
        (10, -5, {}, ""),  # three o'clock has not come
        (20, -5, {}, "2026-11-25T03:00:00+00:00"),
        (20, 15, {}, ""),  # it was started at three
        (20, -5, {"when_drift": 1.0}, ""),  # it may have fired and waited
        (15.01, -5, {}, ""),  # a minute ago: the start may be on its way
    ],
)
def test_a_schedule_shows_its_next_firing_and_one_that_was_missed(
    hours: float, started: float, given: dict, missed: str
) -> None:
    (row,) = schedules_in(
        Scheduler("cron(0 3 * * ? *)", **given),
        "group",
        lambda pipeline: NOON.timestamp() + started * 3600,
        now=lambda: NOON.timestamp() + hours * 3600,
    )
    assert row["missed"] == missed
    assert row["next"] == ("2026-11-25" if hours < 15 else "2026-11-26") + "T03:00:00+00:00"


def test_parameters_and_changes_of_a_deployment() -> None:
    assert parameters_of(["A=1", "B=x=y"]) == {"A": "1", "B": "x=y"}
    for wrong in ("A", "=1", "Prefix=x"):
        with pytest.raises(UsageError):
            parameters_of([wrong])
    assert changes_text([], applied=False) == "nothing changes"
    assert "push the images" in changes_text([], applied=True)
    assert "proxy.Dockerfile" in synth.synthesized_text(Path("out"))


def test_a_local_cloud_names_its_endpoints(tmp_path: Path) -> None:
    info = CloudInfo(pid=7, gateway_port=1, mqtt_port=2, sagemaker_port=3, started_at=0.0)
    text = cloud_text(LocalCloud(Home(tmp_path), info, None))
    assert "process 7" in text
    assert "127.0.0.1:2" in text


def record() -> RoundRecord:
    return RoundRecord(
        round=1,
        train={},
        evaluate={"loss": 0.5},
        server={},
        participants=3,
        failures={"no-reply": 1},
        seconds=RoundSeconds(2.0, 1.0, 0.5, 0.25),
        bytes=RoundBytes(1, 2),
        devices=[],
    )


def test_rounds_and_reports_read_as_text() -> None:
    assert round_text(record()).startswith("round 1: loss 0.5  (3 devices, 2.0 s, overhead 0.25 s)")
    failed_rows = [
        msgspec.structs.replace(row(f"d{i}", "error"), reason="ValueError: no (task.py:3 in load)")
        for i in range(2)
    ]
    failed_round = msgspec.structs.replace(record(), devices=failed_rows, failures={"app-error": 2})
    assert round_text(failed_round).endswith(
        "failures {'app-error': 2}\n  train: ValueError: no (task.py:3 in load) (2 devices)"
    )
    made = RunReport(status="Succeeded", metric="loss", value=0.5, model_version="digits/1")
    made.tables = {"curve": {"x": [1, 2]}}
    text = report_text(made)
    assert text.startswith("\ncurve\nx\n-")
    assert "approve it with: mledgeops approve digits/1" in text
    failed = RunReport(status="NotBetter", reason="It is 9; the minimum is 8.", run_id="run-1")
    analysis = RunReport(
        status="Succeeded", outcome="analysis", run_id="run-1", files={"a.png": "k"}, seconds=3.0
    )
    text = report_text(analysis)
    assert "files: a.png" in text
    assert "Succeeded in 3 s: an analysis of 0 rounds" in text
    assert "approve" not in text
    unjudged = RunReport(status="Succeeded", model_version="digits/2", metric="", seconds=3.0)
    assert "Succeeded in 3 s: not judged" in report_text(unjudged)
    assert report_text(failed).splitlines()[-2:] == [
        "NotBetter: It is 9; the minimum is 8.",
        "logs: mledgeops logs run-1",
    ]


@pytest.mark.parametrize(
    ("report", "interrupted", "code"),
    [
        ("Succeeded", False, 0),
        ("Stopped", True, 130),
        ("Stopped", False, 1),
        ("NotBetter", False, 1),
    ],
)
def test_a_run_ends_with_its_exit_code(
    report: str, interrupted: bool, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = RunReport(status=report, model_version="digits/1")
    assert following._ended(ended, interrupted=interrupted, as_json=True) == code
    assert json.loads(capsys.readouterr().out)["status"] == report


class CheckProcess:
    """A check's process."""

    def __init__(self, code: int, errors: str, said: str = 'noise\n{"app": "a"}\n') -> None:
        self.returncode, self.errors, self.said = code, errors, said

    def communicate(self) -> tuple[str, str]:
        return self.said, self.errors


def test_an_app_is_refused_with_its_checks_last_line() -> None:
    assert app_check.finish(CheckProcess(0, "noise")) == {"app": "a"}  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not a ClientApp"):
        app_check.finish(CheckProcess(2, "noise\nnot a ClientApp\n"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="ends the process that imports it"):
        app_check.finish(CheckProcess(0, "", "bye"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="ended with code -9"):
        app_check.finish(CheckProcess(-9, ""))  # type: ignore[arg-type]


def test_measures_have_targets_and_processes_roles() -> None:
    assert Measure(name="m", value=2.0, unit="s", target=1.0).ratio == 2.0
    assert not Measure(name="m", value=2.0, unit="s", target=1.0).is_met
    assert Measure(name="m", value=2.0, unit="s").is_met
    assert role_of(["python", "-m", "fl_runtime.proxy"]) == "proxy"
    assert role_of(["bash"]) == ""
    rounds = [{"seconds": {"overhead": 1.0, "total": 2.0}, "bytes": {"up": 3, "down": 4}}]
    assert [m.value for m in round_measures(rounds)] == [1.0, 1.0, 2.0, 3, 4]
    assert [m.name for m in memory_measures({"proxy": 1.0})] == ["peak memory, proxy"]
    assert run_command(Path("app"), devices=2, rounds=1)[-1] == "--json"
    with pytest.raises(UsageError, match="did not succeed: no reason"):
        succeeded(b"{}")
    parts = {"a": list, "b": list}
    assert len(chosen_parts(parts, ["b"])) == 1
    with pytest.raises(UsageError, match="no part 'c'"):
        chosen_parts(parts, ["c"])
    calls = [0]
    assert CountedClient("text", calls).upper() == "TEXT"
    assert calls == [1]


def test_a_lost_seed_says_what_was_lost() -> None:
    verdict = Verdict(
        seed=3,
        faults=["s3-gone"],
        status="Failed",
        seconds=2.0,
        told=["S3 gone"],
        violations=["no model"],
    )
    assert "LOST   no model" in verdict_text(verdict)
    counts = {"s3-gone": {"tried": 1, "survived": 0}}
    assert suite_text([verdict], counts).endswith("0 of 1 seeds survived; the slowest took 2.0 s")


def test_what_an_app_uses_is_told_with_its_place_and_how_it_runs() -> None:
    use = {"uses": "FedAvg", "where": "a/server.py:7", "runs": "Cohorts average."}
    found = {
        "app": "a",
        "version": "1.0",
        "devices": 4,
        "rounds_key": "",
        "ends_with": "analysis",
        "features": [use, {**use, "uses": "mods", "where": ""}],
    }
    text = check_text(found)
    assert "a 1.0: 4 devices\nends with an analysis: it registers no model\n" in text
    assert "FedAvg (a/server.py:7)\n    Cohorts average.\nmods\n    Cohorts average." in text


def test_a_thousand_devices_may_take_no_longer_each_than_sixty_four() -> None:
    slower = by_size({8: 0.4, 64: 1.28, 1000: 30.0})
    assert [m.target for m in slower] == [None, 1.2, 15.0, 0.02]
    assert [m.is_met for m in slower] == [True, False, False, False]
    assert all(m.is_met for m in by_size({64: 1.0, 1000: 14.0}))
    assert len(by_size({8: 0.4})) == 1
    assert (APP / "pyproject.toml").is_file()
