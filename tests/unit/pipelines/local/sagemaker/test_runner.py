"""The order of an execution's steps: dependencies, branches, failures, stops, limits."""

from __future__ import annotations

import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.pipelines import engine_on, ran, until

from pipelines.local.sagemaker.moto_actions import answered_by, invalid, not_supported


class Functions:
    """Lambda functions that note when they are called; some fail, some wait for others."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.together = threading.Barrier(2, timeout=5)
        self.running = self.most = 0
        self._lock = threading.Lock()

    def invoke(self, FunctionName: str, Payload: str) -> dict[str, Any]:
        with self._lock:
            self.calls.append((FunctionName, json.loads(Payload)))
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            return self._answer(FunctionName)
        finally:
            with self._lock:
                self.running -= 1

    def _answer(self, name: str) -> dict[str, Any]:
        if name == "meet":
            self.together.wait()
        if name == "slow":
            time.sleep(0.03)
        if name == "broken":
            return {
                "FunctionError": "Unhandled",
                "Payload": io.BytesIO(b'{"errorMessage": "boom"}'),
            }
        if name == "denied":
            error = {"Code": "AccessDeniedException", "Message": "not authorized"}
            raise ClientError({"Error": error}, "Invoke")
        return {"Payload": io.BytesIO(json.dumps({"out": name}).encode())}


def step(name: str, function: str = "f", *after: str, **arguments: Any) -> dict[str, Any]:
    return {
        "Name": name,
        "Type": "Lambda",
        "FunctionArn": function,
        "Arguments": arguments,
        "OutputParameters": [{"OutputName": "out", "OutputType": "String"}],
        "DependsOn": list(after),
    }


def out(name: str) -> dict[str, str]:
    return {"Get": f"Steps.{name}.OutputParameters['out']"}


def choice(name: str, value: Any, yes: list[Any], no: list[Any]) -> dict[str, Any]:
    condition = {"Type": "Equals", "LeftValue": value, "RightValue": "f"}
    arguments = {"Conditions": [condition], "IfSteps": yes, "ElseSteps": no}
    return {"Name": name, "Type": "Condition", "Arguments": arguments}


FAIL = {"Name": "Low", "Type": "Fail", "Arguments": {"ErrorMessage": "too low"}}


@pytest.fixture
def functions() -> Functions:
    return Functions()


def run(folder: Path, functions: Functions, *steps: dict[str, Any]) -> Any:
    return ran(engine_on(folder, **{"lambda": functions})[0], {"Steps": list(steps)})


def test_steps_run_by_their_dependencies_not_by_their_order(
    tmp_path: Path, functions: Functions
) -> None:
    made = run(tmp_path, functions, step("c_3", a=out("b_2")), step("b_2", "f", "a_1"), step("a_1"))
    assert made.status == "Succeeded"
    assert list(made.steps) == ["a_1", "b_2", "c_3"]
    assert functions.calls[2] == ("f", {"a": "f"})


def test_independent_steps_run_side_by_side(tmp_path: Path, functions: Functions) -> None:
    made = run(tmp_path, functions, step("A", "meet"), step("B", "meet"), step("C", "f", "A", "B"))
    assert [made.status, *made.steps] == ["Succeeded", "A", "B", "C"]


def test_no_more_steps_run_at_once_than_the_pipeline_allows(
    tmp_path: Path, functions: Functions
) -> None:
    engine, _ = engine_on(tmp_path, **{"lambda": functions})
    steps = [step(f"S{number}", "slow") for number in range(5)]
    execution = engine.start("p", {"Steps": steps}, {}, parallel=2)
    until(lambda: execution.status == "Succeeded")
    assert functions.most == 2


@pytest.mark.parametrize(("value", "taken"), [("f", "Yes"), ("g", "No")])
def test_a_condition_runs_one_branch_and_leaves_out_what_needs_the_other(
    tmp_path: Path, functions: Functions, value: str, taken: str
) -> None:
    pick = choice("Pick", value, [step("Yes")], [step("No")])
    after = [step("After_Yes", "f", "Yes"), step("After_No", x=out("No")), step("Anyway")]
    made = run(tmp_path, functions, pick, *after)
    assert made.status == "Succeeded"
    assert set(made.steps) == {"Pick", taken, f"After_{taken}", "Anyway"}
    assert made.steps["Pick"]["Metadata"] == {"Condition": {"Outcome": str(value == "f")}}


def test_conditions_may_lie_in_branches(tmp_path: Path, functions: Functions) -> None:
    inner = choice("Inner", out("First"), [step("Both")], [])
    made = run(tmp_path, functions, step("First"), choice("Outer", "f", [inner], [FAIL]))
    assert [made.status, *made.steps] == ["Succeeded", "First", "Outer", "Inner", "Both"]


def test_after_a_failure_running_steps_end_and_no_other_begins(
    tmp_path: Path, functions: Functions
) -> None:
    made = run(tmp_path, functions, step("Bad", "broken"), step("S", "slow"), step("N", "f", "S"))
    assert (made.status, made.reason) == ("Failed", "Lambda broken: boom")
    assert {name: item["StepStatus"] for name, item in made.steps.items()} == {
        "Bad": "Failed",
        "S": "Succeeded",
    }


def test_a_fail_step_ends_the_pipeline_with_its_message(
    tmp_path: Path, functions: Functions
) -> None:
    made = run(tmp_path, functions, choice("Pick", "g", [], [FAIL]))
    assert (made.status, made.reason) == ("Failed", "too low")
    assert made.steps["Low"]["Metadata"] == {"Fail": {"ErrorMessage": "too low"}}


def test_a_step_whose_role_may_not_says_what_was_denied(
    tmp_path: Path, functions: Functions
) -> None:
    made = run(tmp_path, functions, step("Call", "denied"))
    assert made.steps["Call"]["FailureReason"] == "Invoke: not authorized"


def test_a_value_that_a_step_did_not_give_fails_the_step_that_refers_to_it(
    tmp_path: Path, functions: Functions
) -> None:
    wrong = {"Get": "Steps.A.OutputParameters['rmse']"}
    made = run(tmp_path, functions, step("A"), step("B", x=wrong))
    assert made.reason == f"The pipeline refers to {wrong['Get']}, which does not exist."


def test_a_stopped_execution_begins_no_step(tmp_path: Path, functions: Functions) -> None:
    engine, _ = engine_on(tmp_path, **{"lambda": functions})
    steps = [step("A", "slow"), step("B", "slow", "A"), step("C", "f", "B")]
    execution = engine.start("p", {"Steps": steps}, {})
    until(lambda: execution.steps)
    engine.stop(execution)
    until(lambda: execution.status == "Stopped")
    assert "C" not in execution.steps


def test_actions_that_moto_lacks_are_refused() -> None:
    with pytest.raises(type(invalid("")), match="does not know create_nothing"):
        not_supported("create_nothing")(None)
    assert answered_by(lambda _: {"a": 1})(None).result == {"a": 1}
