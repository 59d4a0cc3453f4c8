"""AWS's own plugin for managed MLflow takes the ARN of the serverless app that the stacks make."""

from __future__ import annotations

import pytest
from sagemaker_mlflow.auth_provider import AuthProvider
from sagemaker_mlflow.mlflow_sagemaker_helpers import SageMakerMLflowHostMetadataProvider
from sagemaker_mlflow.mlflow_sagemaker_request_header_provider import (
    MlflowSageMakerRequestHeaderProvider,
)

from pipelines.aws.rehearsal.values import Place, Values
from pipelines.aws.stack_specs import specs
from pipelines.deployment import Deployment

D = Deployment(account="123456789012", region="eu-central-1", prefix="plant")


def test_host_header_and_signature_are_the_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    exports: dict[str, str] = {}
    place = Place(account=D.account, region=D.region, zones=("a", "b"))
    for spec in specs(D, {"CodeKey": "code", "Network": "public"}):
        values = Values(spec.name, spec.template, spec.parameters, place, exports)
        exports.update(values.exported())
    arn = exports["plant-mlflow"]
    host = SageMakerMLflowHostMetadataProvider()
    host.set_arn(arn)
    assert host.construct_tracking_server_url() == "https://mlflow.sagemaker.eu-central-1.app.aws"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", arn)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    assert AuthProvider().get_auth().sigv4._service_name == "sagemaker"
    assert MlflowSageMakerRequestHeaderProvider().request_headers() == {"x-sm-mlflow-app-arn": arn}
