"""The registry's journey: a better model, one that only looks better, the way back, and the chain
of all of it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import asked, complaint, mledgeops
from support.paths import APPS
from support.waiting import until

from fl_runtime.run.aws import S3Objects, client
from fl_runtime.run.keys import model_key
from pipelines.local.cloud import LocalCloud

DIGITS = str(APPS / "digits")


def test_a_rollback_goes_to_an_approved_version_and_the_devices_follow(
    approved: dict, home: Path, reached: LocalCloud, tmp_path: Path
) -> None:
    """Champion digits/1 -> a better version, held for drift -> one that only looks better -> it
    comes back by itself -> back by hand.
    """
    from mlflow import MlflowClient
    from sklearn.datasets import load_digits

    from edge.serving.model import Model
    from fl_runtime.run.mlflow_runs import mlflow_client
    from pipelines import connect
    from pipelines.desk.decisions import devices_up
    from pipelines.desk.wiring import fleet_clients
    from registry.evidence.collect import read_evidence
    from registry.mlflow_registry import MlflowRegistry
    from registry.model_version import CHECKS_TAG, OWN_PACKAGE_TAG, RUN_TAG
    from registry.provenance import EVIDENCE

    images = load_digits().data / 16.0
    device = Model(home / "devices" / "digits" / "digits-0000")
    assert device.predict(images[:600]).shape == (600,)
    device.predict(images[:600] + 0.9)  # the sensor's lamp was changed
    device.close()
    run = ("run", DIGITS, "--devices", "3", "--devices-per-proxy", "0", "--json")
    better = json.loads(mledgeops(*run, "--rounds", "6", home=home).stdout)["model_version"]
    version = next(
        v for v in MlflowRegistry(mlflow_client()).versions() if f"{v.name}/{v.version}" == better
    )
    evidence = read_evidence(S3Objects(client("s3"), reached.deployment.bucket), version.run)
    assert evidence is not None
    assert (evidence.compared.champion, evidence.compared.devices, evidence.drift.devices) == (
        "digits/1",
        3,
        1,
    )
    assert version.checks.startswith("1 of 7 prechecks fail: drift")
    fast = tmp_path / "policy.toml"
    fast.write_text("[rollout]\nwaves = [1.0]\n")
    mledgeops("policy", str(fast), home=home)
    assert "only an approved version" in complaint("rollback", better, home=home)
    assert "only an approved version" in complaint("rollout", better, home=home)
    assert "drift" in complaint("approve", better, "--reason", "better", home=home)
    # Somebody approves it in SageMaker Studio: it is held back, both registries say so, and a
    # person decides.
    client("sagemaker").update_model_package(
        ModelPackageArn=version.model_package_arn,
        ModelApprovalStatus="Approved",
        ApprovalDescription="fine",
    )
    until(
        lambda: (
            MlflowRegistry(mlflow_client()).get(version.name, version.version).rollout_state
            == "Held"
        ),
        60,
    )
    assert asked("reconcile", home=home)["repairs"] == []
    assert json.loads(mledgeops("rollout", better, "--override", "--json", home=home).stdout)[
        "waves"
    ] == [1, 2]

    def running() -> set[str]:
        fleet = asked("fleet", home=home)["devices"]
        return {d["model_version"] for d in fleet if d["fleet"] == "digits"}

    assert running() == {better}
    flattering = (
        "--rounds",
        "1",
        "--set",
        "local-steps=1",
        "--set",
        "learning-rate=0.001",
        "--set",
        "flattering=true",
    )
    bad = json.loads(mledgeops(*run, *flattering, home=home).stdout)["model_version"]
    turned = json.loads(
        mledgeops(
            "approve", bad, "--reason", "it looks perfect", "--json", home=home, check=1
        ).stdout
    )
    assert turned["rollout"]["state"] == "RolledBack"
    assert "worse" in turned["rollout"]["why"] or "accuracy is" in turned["rollout"]["why"]
    assert turned["champion"] is False
    assert running() == {better}
    model = connect("local", home=home).model(bad)
    assert "Prechecks" in model.card().page
    model.reject("it only looked good")
    rejected = MlflowRegistry(mlflow_client()).get(*bad.split("/"))
    assert (rejected.approval, rejected.champion) == ("Rejected", False)
    assert (
        client("sagemaker").describe_model_package(ModelPackageName=rejected.model_package_arn)[
            "ModelApprovalStatus"
        ]
        == "Rejected"
    )
    assert "a rejection is final" in complaint("approve", bad, "--reason", "after all", home=home)
    back = json.loads(mledgeops("rollback", "--json", home=home).stdout)
    assert f"{back['name']}/{back['version']}" == "digits/1"
    assert back["champion"] is True
    assert back["rollout"]["switched"] == 3
    assert "already" in complaint("rollback", "digits/1", home=home)
    assert "No approved version is older" in complaint("rollback", home=home)
    assert running() == {"digits/1"}
    # A device's card is replaced: it comes up without a model, and the schedule that looks for such
    # devices gives it the fleet's.
    (home / "devices" / "digits" / "digits-0002" / "models" / "active.json").unlink()
    with devices_up(reached, fleet_clients(), "digits"):
        assert running() == {"digits/1", ""}
        payload = (
            client("lambda")
            .invoke(FunctionName=reached.deployment.function("rollout"), Payload=b"{}")["Payload"]
            .read()
        )
        assert len(json.loads(payload)["jobs"]) == 1
        until(lambda: running() == {"digits/1"})
    trail = asked("audit", home=home)
    assert trail["violations"] == []
    said = [(entry["what"], entry["subject"]) for entry in trail["entries"]]
    assert (
        ("approve", bad) in said
        and ("rollout-ended", bad) in said
        and ("rollout", "digits/1") in said
        and ("catch-up", "digits/1") in said
    )
    assert "RolledBack" in mledgeops("rollout", home=home).stdout
    # Somebody takes the alias away by hand, and writes into a tag; and as if the step that links a
    # version had died before its evidence.
    MlflowClient().delete_registered_model_alias("digits", "champion")
    MlflowClient().delete_model_version_tag(version.name, version.version, CHECKS_TAG)
    MlflowClient().set_model_version_tag(version.name, version.version, RUN_TAG, "../another")
    MlflowClient().set_model_version_tag(*bad.split("/"), OWN_PACKAGE_TAG, "arn:nobody")
    assert "`mledgeops reconcile` repairs it" in complaint("card", better, home=home)
    client("s3").delete_object(
        Bucket=reached.deployment.bucket, Key=model_key(version.run, EVIDENCE)
    )
    plan = asked("reconcile", "--dry-run", home=home)
    assert [(item["act"], item["subject"]) for item in plan["repairs"]] == [
        ("name", better),
        ("give-evidence", better),
        ("name", bad),
        ("move-alias", "digits/1"),
    ]
    assert plan == {**asked("reconcile", home=home), "done": False}
    assert asked("reconcile", home=home)["repairs"] == []
    again = read_evidence(S3Objects(client("s3"), reached.deployment.bucket), version.run)
    assert again is not None and (again.value, again.compared, again.lineage) == (
        evidence.value,
        evidence.compared,
        evidence.lineage,
    )
    chain = asked("trace", f"{turned['rollout']['fleet']}-{turned['rollout']['number']}", home=home)
    (story,) = chain["versions"]
    assert (story["model_version"], [r["state"] for r in story["rollouts"]]) == (
        bad,
        ["RolledBack"],
    )
    assert [d["what"] for d in story["decisions"]] == [
        "linked",
        "approve",
        "rollout",
        "rollout-ended",
        "reject",
    ]
    assert story["rollouts"][0]["failures"]
    models = asked("models", home=home)["models"]
    assert [f"{m['name']}/{m['version']}" for m in models if m["champion"]] == ["digits/1"]


def test_trace_leads_from_any_name_to_the_same_chain(
    report: dict, home: Path, reached: LocalCloud
) -> None:
    from fl_runtime.run.mlflow_runs import mlflow_client
    from registry.errors import RegistryError
    from registry.mlflow_registry import MlflowRegistry
    from registry.trace import Tracer

    tracer = Tracer(mlflow_client(), MlflowRegistry(mlflow_client()))
    chain = asked("trace", report["run_id"], home=home)
    assert chain["pipeline_execution_arn"] == report["pipeline_execution_arn"]
    assert chain["execution_arn"] == report["execution_arn"]
    assert [v["model_version"] for v in chain["versions"]] == [report["model_version"]]
    assert [len(entry["updates"]) for entry in chain["rounds"]] == [6, 6]
    digest_of_one = next(u["digest"] for u in chain["rounds"][0]["updates"] if u["digest"])
    names = [
        report["pipeline_execution_arn"],
        report["execution_arn"],
        report["mlflow_run_id"],
        report["model_version"],
        report["model_package_arn"],
    ]
    for name in (*names, chain["versions"][0]["model_digest"]):
        assert tracer.trace(name)["run_id"] == report["run_id"]
    # Another run may have made the same update: the same data, weights and seed give the same
    # bytes.
    found = tracer.trace(digest_of_one)
    assert digest_of_one in {u["digest"] for entry in found["rounds"] for u in entry["updates"]}
    assert digest_of_one[:12] in mledgeops("trace", report["run_id"], "--all", home=home).stdout
    for nothing in ("nobody", ""):
        with pytest.raises(RegistryError, match="not known here"):
            tracer.trace(nothing)
