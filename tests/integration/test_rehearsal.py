"""A rehearsal says whether a new account takes the deployment. What was shipped before an audit is
kept in ``before``: each finding of the audit that a template, policy, bundle or image shows is a
rule that it breaks.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipelines.aws import stack_specs
from pipelines.aws.rehearsal.account import Account
from pipelines.aws.rehearsal.clients import AccountClients
from pipelines.aws.rehearsal.rehearsal import Report
from pipelines.aws.rehearsal.rules import RULES
from pipelines.aws.rehearsal.values import Place
from pipelines.cli.commands.operate import deploy
from pipelines.cli.main import main
from pipelines.errors import DeployError

BEFORE = Path(__file__).parent / "before"
REGION = "eu-central-1"


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.so", content)
    return buffer.getvalue()


WHEELS = zipped(numpy=b"\0GLIBC_2.17\0GLIBC_2.27\0", cryptography=b"\0GLIBC_2.28\0")
"""What a deployment installs for the functions, for as much as the rules see of it."""


def rules_of(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings if finding.refuses}


@pytest.fixture(scope="module")
def before() -> Report:
    """The templates, images and calls of before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLEDGEOPS_PREFIX", "plant")
        patch.setattr(
            stack_specs, "template", lambda name: json.loads((BEFORE / f"{name}.json").read_text())
        )
        patch.setattr(stack_specs, "with_literal_names", lambda template, _: template)
        # No code made the role, and none asked for zones.
        patch.setattr(deploy, "make_service_role", lambda _: None)
        patch.setattr(deploy, "_found", lambda *_: {})
        return deploy.rehearsed(
            REGION, {}, WHEELS, images={f.stem: f.read_text() for f in BEFORE.glob("*.Dockerfile")}
        )


@pytest.fixture(scope="module")
def now() -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLEDGEOPS_PREFIX", "plant")
        return deploy.rehearsed(REGION, {"AlarmEmail": "night@example.org"}, WHEELS)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("iot-policy", "characters; AWS IoT takes 2048"),
        ("private-dns", "com.amazonaws.eu-central-1.iot.data has no private DNS name"),
        ("iot-name", "no private zone names it data-ats.iot.eu-central-1.amazonaws.com"),
        ("service-linked-role", "no service-linked role of ECS"),
        ("retained-names", "plant-123456789012-eu-central-1 exists already"),
        ("trusted-keys", "alias/plant-commands would lead to a new key"),
        ("zones", "com.amazonaws.eu-central-1.iot.data is not offered in eu-central-1a"),
        ("glibc", "needs glibc 2.28; python3.11 has 2.26"),
        ("cold-start", "a heartbeat of 30 s"),
        ("capacity", "FARGATE has weight 0"),
        ("mounts", "/tmp is root's 0755"),
        ("image-size", "torch comes from PyPI"),
        ("alarm-topic", "alarms may not publish"),
    ],
)
def test_what_was_shipped_before_breaks_a_rule_for_each_finding(
    before: Report, rule: str, said: str
) -> None:
    found = [finding for finding in before.findings if finding.rule == rule]
    assert any(said in finding.reason for finding in found), [f.reason for f in found]
    assert not before.accepted


OPEN: set[str] = set()
"""Rules that what is shipped still breaks."""


def test_a_new_account_takes_what_is_shipped_now(now: Report) -> None:
    assert rules_of(now) <= OPEN, [f for f in now.findings if f.rule not in OPEN]
    assert now.resources > 100


def test_a_region_that_lacks_a_service_is_named() -> None:
    # A trial in a public network, whose subnets may lie in any zone.
    report = deploy.rehearsed("ap-northeast-3", {"Network": "public"}, WHEELS)
    assert rules_of(report) <= OPEN | {"region"}
    assert "the region has no iot: deploy to another" in {f.reason for f in report.findings}
    (remark,) = (f for f in report.findings if not f.refuses)
    assert "install the agent on devices by systemd" in remark.reason


def test_every_rule_names_the_page_that_says_so() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.page.startswith("https://") for rule in RULES)


def test_the_command_answers_and_its_exit_code_says_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deploy, "_code", lambda _: zipped(new=b"GLIBC_2.99"))
    assert main(["deploy", "--rehearse", REGION, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["accepted"] is False
    assert ("glibc", "new.so") in {(f["rule"], f["where"]) for f in document["findings"]}


def test_the_answer_stands_below_the_findings(before: Report, now: Report) -> None:
    *_, answer = deploy.rehearsal_text(before).splitlines()
    assert answer.startswith(f"a new account in {REGION} does not take this: ")
    good = dataclasses.replace(now, accepted=True, findings=())
    assert deploy.rehearsal_text(good).startswith(f"a new account in {REGION} takes this: ")


def clients(**zones: tuple[str, ...]) -> AccountClients:
    place = Place(account="123456789012", region=REGION, zones=("a", "b"))
    return AccountClients(Account(place=place), zones)


def test_a_request_that_aws_would_refuse_stops_the_rehearsal() -> None:
    """boto3 alone lets it through: it checks no patterns."""
    with pytest.raises(DeployError, match=r"CreateChangeSet would be refused: \.StackName"):
        clients().client("cloudformation").create_change_set(
            StackName="under_score", ChangeSetName="a"
        )


def test_a_call_that_the_rehearsal_does_not_know_is_named() -> None:
    """Otherwise a new step of a deployment would go unseen."""
    with pytest.raises(DeployError, match="no answer to sqs:ListQueues"):
        clients().client("sqs").list_queues()


def test_the_functions_code_has_no_bucket_before_the_first_stack() -> None:
    s3: Any = clients().client("s3")
    with pytest.raises(s3.exceptions.NoSuchBucket):
        s3.put_object(Bucket="plant-code", Key="a", Body=b"b")
