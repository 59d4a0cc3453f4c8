"""The steps of a pipeline, one by one, and moto's actions that ours replace."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.local.sagemaker.executions import Callbacks, PipelineExecution
from pipelines.local.sagemaker.moto_actions import answered_by, invalid, not_supported
from pipelines.local.sagemaker.steps import ExecutionStopped, StepFailed, StepRunner

FAIL = {"Name": "Low", "Type": "Fail", "Arguments": {"ErrorMessage": "too low"}}


def runner(execution: PipelineExecution) -> StepRunner:
    return StepRunner(execution, {}, Callbacks(), lambda _: None)


def execution() -> PipelineExecution:
    return PipelineExecution("arn:x/execution/1", "p", {}, {"P": 1})


def test_a_failed_step_ends_the_steps_and_says_why() -> None:
    made = execution()
    with pytest.raises(StepFailed, match="too low"):
        runner(made).run([FAIL, {"Name": "Never", "Type": "Fail", "Arguments": {}}])
    assert list(made.steps) == ["Low"]
    assert made.steps["Low"]["StepStatus"] == "Failed"
    assert made.steps["Low"]["Metadata"] == {"Fail": {"ErrorMessage": "too low"}}


def test_a_stopped_execution_begins_no_step() -> None:
    made = execution()
    made.stopping.set()
    with pytest.raises(ExecutionStopped):
        runner(made).run([FAIL])
    assert made.steps == {}


def test_a_step_of_another_type_fails_with_its_type() -> None:
    with pytest.raises(StepFailed, match="does not run steps of type Tuning"):
        runner(execution()).run([{"Name": "T", "Type": "Tuning"}])


@pytest.mark.parametrize(("value", "branch"), [(1, "Yes"), (2, "No")])
def test_a_condition_runs_one_branch(value: int, branch: str) -> None:
    def named(name: str) -> dict[str, Any]:
        return {**FAIL, "Name": name}

    condition = {"Type": "Equals", "LeftValue": {"Get": "Parameters.P"}, "RightValue": value}
    arguments = {
        "Conditions": [condition],
        "IfSteps": [named("Yes")],
        "ElseSteps": [named("No")],
    }
    made = execution()
    with pytest.raises(StepFailed):
        runner(made).run([{"Name": "C", "Type": "Condition", "Arguments": arguments}])
    assert list(made.steps) == ["C", branch]


def test_motos_actions_answer_refuse_and_explain() -> None:
    assert answered_by(lambda response: {"a": response})(7).result == {"a": 7}
    assert "wrong" in str(invalid("wrong"))
    with pytest.raises(Exception, match="does not know delete_pipeline"):
        not_supported("delete_pipeline")(None)
