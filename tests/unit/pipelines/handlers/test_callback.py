"""A callback is answered once, whatever comes twice; other refusals of SageMaker are errors."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from fakes.services import MemorySageMaker, memory_services

from fl_runtime.run.errors import CAUSE_LIMIT
from pipelines.handlers.callback import answer_failure, answer_success

TOKEN = "Tok1234567"


def test_the_first_answer_counts() -> None:
    aws: Any = memory_services()
    answer_failure(TOKEN, "x" * 999, aws)
    answer_success(TOKEN, [{"Name": "run", "Value": "run-1"}], aws)
    assert aws.sagemaker.answers == {TOKEN: "x" * CAUSE_LIMIT}


def test_other_errors_are_not_swallowed() -> None:
    class Throttled(MemorySageMaker):
        def send_pipeline_execution_step_failure(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "Send")

    with pytest.raises(ClientError):
        answer_failure(TOKEN, "why", memory_services(sagemaker=Throttled()))
