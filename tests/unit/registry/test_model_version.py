"""Names, tags and values of a version."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from registry.errors import RegistryError
from registry.model_version import (
    DIGEST_TAG,
    GOAL,
    METRIC,
    MLFLOW_NAME,
    MLFLOW_VERSION,
    OWN_PACKAGE_TAG,
    RUN_TAG,
    SCORE_TAG,
    Package,
    Version,
    VersionName,
    has_origin_of,
    metric_value,
    origin_tags,
    parse_number,
)

PACKAGE = Package(
    arn="arn:1",
    group="wind",
    version=1,
    approval="Approved",
    metadata={RUN_TAG: "run-1", SCORE_TAG: "-2.5", DIGEST_TAG: "d", METRIC: "rmse"},
    model_data="",
)
VERSION = Version(
    name="wind",
    version="1",
    run="run-1",
    mlflow_run_id="m",
    model_package_arn="arn:1",
    approval="Approved",
    score=-2.5,
    model_digest="d",
    champion=False,
    created_at=0.0,
)


@given(st.from_regex(r"[A-Za-z0-9-]{1,60}", fullmatch=True), st.integers(1, 10**9))
def test_a_name_is_parsed_as_it_is_written(model: str, number: int) -> None:
    name = VersionName(model, str(number))
    assert VersionName.parse(str(name)) == name


@pytest.mark.parametrize("text", ["", "wind", "wind/", "/1", "wind/one", "wind/1/2"])
def test_anything_else_is_no_name(text: str) -> None:
    with pytest.raises(RegistryError, match="NAME/NUMBER"):
        VersionName.parse(text)


def test_a_package_names_its_version_once_it_is_linked() -> None:
    assert PACKAGE.model_version == ""
    linked = replace(PACKAGE, metadata={MLFLOW_NAME: "wind", MLFLOW_VERSION: "3"})
    assert linked.model_version == "wind/3"
    assert VERSION.model_version == "wind/1"


def test_the_value_is_the_metric_as_the_app_reports_it() -> None:
    assert (PACKAGE.metric, PACKAGE.value) == ("rmse", 2.5)
    assert metric_value({METRIC: "accuracy", SCORE_TAG: "0.9"}) == 0.9
    assert metric_value({METRIC: "profit", GOAL: "maximize", SCORE_TAG: "7"}) == 7.0
    assert metric_value({METRIC: "score-like", GOAL: "minimize", SCORE_TAG: "-7"}) == 7.0
    assert metric_value({SCORE_TAG: "-7"}) is None, "made by 0.4: nobody knows the metric"
    assert metric_value({METRIC: "rmse", SCORE_TAG: "nonsense"}) is None


def test_a_version_repeats_where_its_package_comes_from() -> None:
    assert origin_tags(PACKAGE) == {OWN_PACKAGE_TAG: "arn:1", **PACKAGE.metadata}
    assert has_origin_of(VERSION, PACKAGE)
    for changes in ({"run": "run-2"}, {"score": 1.0}, {"model_digest": "e"}):
        assert not has_origin_of(replace(VERSION, **changes), PACKAGE)
    assert has_origin_of(VERSION, replace(PACKAGE, metadata={})), "it says nothing else"


@pytest.mark.parametrize(("text", "number"), [("1.5", 1.5), ("", None), ("nan", None), ("x", None)])
def test_only_finite_numbers_are_numbers(text: str, number: float | None) -> None:
    assert parse_number(text) == number
