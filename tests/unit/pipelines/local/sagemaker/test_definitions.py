"""Definitions: what is refused, what references lead to, which conditions hold."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.local.sagemaker.definitions.checks import parsed
from pipelines.local.sagemaker.definitions.conditions import holds
from pipelines.local.sagemaker.definitions.paths import value_at
from pipelines.local.sagemaker.definitions.values import Scope

EXECUTION = "arn:aws:sagemaker:r:a:pipeline/p/execution/abc"
LAMBDA = {"Name": "A_1", "Type": "Lambda", "FunctionArn": "f", "Arguments": {}}
GOOD: dict[str, Any] = {
    "Version": "2020-12-01",
    "Parameters": [{"Name": "Bar", "Type": "Float", "DefaultValue": 0.5}],
    "Steps": [LAMBDA],
}


def refers(reference: str) -> dict[str, Any]:
    return {**LAMBDA, "Name": "B", "Arguments": {"x": {"Std:Join": {"Values": [get(reference)]}}}}


def get(reference: str) -> dict[str, str]:
    return {"Get": reference}


def condition(kind: str, **arguments: Any) -> dict[str, Any]:
    steps = {"Conditions": [{"Type": kind, **arguments}], "IfSteps": [], "ElseSteps": []}
    return {"Name": "C", "Type": "Condition", "Arguments": steps}


@pytest.mark.parametrize(
    ("added", "why"),
    [
        ({**LAMBDA}, "Two steps have the name A_1"),
        ({**LAMBDA, "Name": "a b"}, "step name 'a b' is not one to 64 letters"),
        ({**LAMBDA, "Name": "x" * 65}, "is not one to 64 letters"),
        ({**LAMBDA, "Name": "B", "DependsOn": ["A_2"]}, "no step. The nearest name is A_1"),
        ({**LAMBDA, "Name": "B", "Arguments": []}, "Arguments of the step B are not an object"),
        (refers("Parameters.Bra"), "does not declare. The nearest name is Bar"),
        (refers("Execution.StartTime"), "does not exist. The nearest name is StartDateTime"),
        (refers("Steps.A_2.OutputParameters['x']"), "no such step. The nearest name is A_1"),
        (refers("Steps.A_1.PropertyFiles.Report"), "declares no such property file"),
        (refers("Nothing.At.All"), "no parameter, execution value or step"),
        (refers("Steps.B.OutputParameters['x']"), "wait for each other: B"),
        (condition("Almost"), "has a condition Almost: not Equals"),
        (condition("Or", Conditions=[{"Type": "Not", "Condition": {"Type": "X"}}]), "condition X"),
        ({"Type": "Lambda"}, "not of SageMaker's form .*Name"),
        ("A", "not of SageMaker's form"),
    ],
)
def test_a_wrong_definition_is_refused_with_what_and_where(added: Any, why: str) -> None:
    wrong = copy.deepcopy(GOOD)
    wrong["Steps"].append(added)
    assert parsed(json.dumps(GOOD)) == GOOD
    with pytest.raises(ValueError, match=why):
        parsed(json.dumps(wrong))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[]", "no list of Steps"),
        ("[" * 100_000, "not JSON"),
        (json.dumps({"Steps": [{**LAMBDA, "Arguments": json.loads("[" * 99 + "]" * 99)}]}), "deep"),
        (json.dumps({"Steps": [{**LAMBDA, "Name": f"S{n}"} for n in range(201)]}), "limit is 200"),
        (json.dumps({"Parameters": [{"Name": "P", "Type": "Text"}], "Steps": []}), "type Text"),
    ],
)
def test_what_is_no_definition_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parsed(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
NAMES = ("Name", "Type", "Steps", "Arguments", "Get", "Conditions", "DependsOn", "Parameters")


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(NAMES), JSON), st.sampled_from(["Condition", "Lambda"]))
def test_whatever_a_definition_holds_it_is_taken_or_refused_in_a_sentence(
    step: dict[str, Any], kind: str
) -> None:
    document = {**GOOD, "Steps": [{"Name": "S", "Type": kind, **step}]}
    try:
        parsed(json.dumps(document))
    except ValueError as error:
        assert str(error).endswith((".", ")"))


def scope(**outputs: Any) -> Scope:
    files = {"s3://b/report.json": b'{"m": {"mse": {"value": 3.5}}, "l": [1, {"k-1": true}]}'}

    def read(uri: str, _limit: int) -> bytes:
        return files.get(uri, b"not JSON")

    made = Scope({"Bar": 0.5, "On": True}, EXECUTION, "p", started_at=0.0, read=read)
    made.outputs.update(outputs)
    made.property_files["Eval_1.Report"] = "s3://b/report.json"
    return made


PROCESSED = {
    "ProcessingOutputConfig": {
        "Outputs": [{"OutputName": "train.v1", "S3Output": {"S3Uri": "s3://b/t"}}]
    },
    "FinalMetricDataList": [{"MetricName": "rmse", "Value": 1.5}],
    "Steps": [{"a": [10, 20]}],
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            get("Steps.My_Step.ProcessingOutputConfig.Outputs['train.v1'].S3Output.S3Uri"),
            "s3://b/t",
        ),
        (get("Steps.My_Step.FinalMetricDataList['rmse'].Value"), 1.5),
        (get("Steps.My_Step.Steps[0].a[1]"), 20),
        (get("Execution.StartDateTime"), "1970-01-01T00:00:00.000Z"),
        (get("Execution.PipelineExecutionId"), "abc"),
        (get("Execution.PipelineArn"), "arn:aws:sagemaker:r:a:pipeline/p"),
        (get("Execution.TrainingJobName"), "job-1"),
        ({"Std:Join": {"On": "/", "Values": ["a", get("Parameters.On"), 1.5]}}, "a/true/1.5"),
        (
            {
                "Std:JsonGet": {
                    "PropertyFile": get("Steps.Eval_1.PropertyFiles.Report"),
                    "Path": "m.mse.value",
                }
            },
            3.5,
        ),
        (
            {
                "Std:JsonGet": {
                    "S3Uri": {"Std:Join": {"On": "/", "Values": ["s3:/", "b", "report.json"]}},
                    "Path": "$.l[1]['k-1']",
                }
            },
            True,
        ),
    ],
)
def test_references_lead_to_their_values(value: Any, expected: Any) -> None:
    names = {"TrainingJobName": "job-1"}
    assert scope(My_Step=PROCESSED).resolve({"x": [value]}, names) == {"x": [expected]}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (get("Parameters.X"), "does not exist"),
        (get("Steps.No.Out"), "does not exist"),
        (get("Steps.My_Step.ProcessingOutputConfig.Outputs['x']"), "does not exist"),
        (get("Steps.My_Step.Steps[7]"), "does not exist"),
        (get("Execution.Nope"), "does not exist"),
        (get("garbage"), "does not exist"),
        ({"Std:JsonGet": {"S3Uri": "s3://b/x", "Path": "a"}}, "cannot be read as JSON"),
        ({"Std:JsonGet": {"S3Uri": "s3://b/report.json", "Path": "m.mae"}}, "nothing at m.mae"),
        ({"Std:JsonGet": {"S3Uri": "s3://b/report.json", "Path": "a b"}}, "is not a path"),
    ],
)
def test_references_that_lead_nowhere_are_refused(value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        scope(My_Step=PROCESSED).resolve(value)


@given(st.text(max_size=30))
def test_whatever_a_path_is_it_leads_somewhere_or_is_refused(path: str) -> None:
    try:
        value_at({"a": [1, {"b": 2}]}, path)
    except (LookupError, ValueError):
        pass


def compare(kind: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": kind, "LeftValue": left, "RightValue": right}


@pytest.mark.parametrize(
    ("kind", "below", "equal", "above"),
    [
        ("Equals", False, True, False),
        ("NotEquals", True, False, True),
        ("GreaterThan", False, False, True),
        ("GreaterThanOrEqualTo", False, True, True),
        ("LessThan", True, False, False),
        ("LessThanOrEqualTo", True, True, False),
    ],
)
def test_comparisons(kind: str, below: bool, equal: bool, above: bool) -> None:
    found = [holds(compare(kind, left, get("Parameters.Bar")), scope()) for left in (0, 0.5, 1)]
    assert found == [below, equal, above]


@pytest.mark.parametrize("names", [("QueryValue", "Values"), ("Value", "In")])
@pytest.mark.parametrize(("kind", "expected"), [("In", True), ("NotIn", False)])
def test_membership_by_the_sdks_and_by_the_schemas_names(
    names: tuple[str, str], kind: str, expected: bool
) -> None:
    value, among = names
    made = {"Type": kind, value: get("Parameters.Bar"), among: [1, get("Parameters.Bar")]}
    assert holds(made, scope()) is expected
    assert holds({**made, among: [1]}, scope()) is not expected


@pytest.mark.parametrize("name", ["Condition", "Expression"])
def test_negation_and_alternatives(name: str) -> None:
    true, false = compare("Equals", 1, 1), compare("Equals", 1, 2)
    assert holds({"Type": "Not", name: false}, scope())
    assert not holds({"Type": "Not", name: true}, scope())
    assert holds({"Type": "Or", "Conditions": [false, true]}, scope())
    assert not holds({"Type": "Or", "Conditions": [false, false]}, scope())


def test_values_that_cannot_be_compared_are_named() -> None:
    with pytest.raises(ValueError, match="'a' and 1 cannot be compared by LessThan"):
        holds(compare("LessThan", "a", 1), scope())
