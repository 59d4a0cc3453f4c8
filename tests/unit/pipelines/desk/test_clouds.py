"""The choice of a cloud: the option first, then the variable, else the local one."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
from pathlib import Path

import pytest

from pipelines.deployment import Deployment
from pipelines.desk import clouds
from pipelines.desk.clouds import AwsCloud, amazon_roots, chosen, use_store
from pipelines.errors import UsageError


def test_the_option_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(clouds.VARIABLE, raising=False)
    assert (chosen(), chosen("aws")) == ("local", "aws")
    monkeypatch.setenv(clouds.VARIABLE, "aws")
    assert (chosen(), chosen("local")) == ("aws", "local")
    monkeypatch.setenv(clouds.VARIABLE, "moon")
    with pytest.raises(UsageError, match="MLEDGEOPS_CLOUD is 'moon'; it must be local or aws"):
        chosen()


def test_the_store_of_a_new_home_is_empty_and_no_cloud_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLEDGEOPS_HOME", str(tmp_path))
    monkeypatch.delenv(clouds.MLFLOW_VARIABLE, raising=False)
    with use_store() as exists:
        assert exists is False
        assert os.environ[clouds.MLFLOW_VARIABLE] == f"sqlite:///{tmp_path}/mlflow.db"
    assert clouds.MLFLOW_VARIABLE not in os.environ
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as made:
        made.execute("CREATE TABLE experiments (id INT)")
        made.execute("INSERT INTO experiments VALUES (0)")
        made.commit()
    with use_store() as exists:
        assert exists is True
    assert list(tmp_path.iterdir()) == [tmp_path / "mlflow.db"]


def test_a_store_that_the_environment_names_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLEDGEOPS_HOME", str(tmp_path))
    monkeypatch.setenv(clouds.MLFLOW_VARIABLE, "http://mine")
    with use_store() as exists:
        assert exists is True
        assert os.environ[clouds.MLFLOW_VARIABLE] == "http://mine"


def test_on_aws_the_store_is_the_deployments_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = AwsCloud(Deployment(account="1", region="r"), iot=None)
    monkeypatch.setattr(AwsCloud, "of_environment", classmethod(lambda _: cloud))
    monkeypatch.setattr(clouds, "tracking_uri", lambda _, deployment: deployment.mlflow_arn)
    monkeypatch.setenv(clouds.VARIABLE, "aws")
    monkeypatch.delenv(clouds.MLFLOW_VARIABLE, raising=False)
    with use_store() as exists:
        assert exists is True
        assert os.environ[clouds.MLFLOW_VARIABLE] == cloud.deployment.mlflow_arn
    with clouds.use() as used:
        assert used is cloud
        assert os.environ["MLEDGEOPS_RUNS_TABLE"] == "mledgeops-runs"


def test_without_a_region_aws_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="No AWS region is set"):
        AwsCloud.of_environment()


class Iot:
    def describe_endpoint(self, endpointType: str) -> dict:
        assert endpointType == "iot:Data-ATS"
        return {"endpointAddress": "x.iot.r.amazonaws.com"}


def test_devices_connect_to_the_accounts_endpoint_and_trust_amazons_roots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clouds, "trusted_keys", lambda kms, deployment: b"{}")
    endpoint = AwsCloud(Deployment(account="1", region="r"), iot=Iot()).endpoint(kms=None)
    assert (endpoint.host, endpoint.port, endpoint.trust) == ("x.iot.r.amazonaws.com", 8883, b"{}")
    assert amazon_roots().count(b"BEGIN CERTIFICATE") == 4
    assert io.BytesIO(endpoint.ca).readline() == b"-----BEGIN CERTIFICATE-----\n"
