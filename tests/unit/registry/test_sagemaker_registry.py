"""Model packages through a SageMaker client."""

from __future__ import annotations

import pytest
from fakes.registries import MemorySageMaker

from registry.errors import RegistryError
from registry.model_version import VersionName
from registry.sagemaker_registry import DESCRIPTION_LIMIT, SageMakerRegistry


def test_all_packages_of_all_groups_and_pages_are_listed() -> None:
    sagemaker = MemorySageMaker()
    for number in range(5):
        sagemaker.add(f"arn:{number}", group=f"g{number % 3}")
    found = SageMakerRegistry(sagemaker).packages()
    assert sorted(package.arn for package in found) == [f"arn:{number}" for number in range(5)]
    assert {package.model_data for package in found} == {"s3://b/k"}


def test_a_package_that_is_not_there_is_said_in_a_sentence() -> None:
    with pytest.raises(
        RegistryError, match="arn:9 is not in SageMaker's registry: no such package"
    ):
        SageMakerRegistry(MemorySageMaker()).get("arn:9")


def test_approval_name_and_card_are_written() -> None:
    sagemaker = MemorySageMaker()
    sagemaker.add("arn:1", run="r")
    registry = SageMakerRegistry(sagemaker)
    assert registry.card("arn:1") == ""
    registry.set_approval("arn:1", "Approved", "x" * 2000)
    registry.set_version("arn:1", VersionName("wind", "3"))
    registry.set_card("arn:1", "{}")
    found = registry.get("arn:1")
    assert (found.approval, found.model_version, found.metadata["run"]) == (
        "Approved",
        "wind/3",
        "r",
    )
    assert registry.card("arn:1") == "{}"
    assert len(sagemaker.packages["arn:1"]["ApprovalDescription"]) == DESCRIPTION_LIMIT


def test_metadata_is_written_in_the_characters_that_sagemaker_takes() -> None:
    sagemaker = MemorySageMaker()
    sagemaker.add("arn:1")
    registry = SageMakerRegistry(sagemaker)
    registry.add_metadata("arn:1", {"checks": 'rmse 5,2 > 4 ("limit") ∑ é', "none": ""})
    found = registry.get("arn:1").metadata
    assert found == {"checks": "rmse 5 2   4   limit     é", "none": "-"}


def test_a_card_that_sagemaker_refuses_gives_its_reason() -> None:
    sagemaker = MemorySageMaker()
    sagemaker.add("arn:1")
    assert "100001" in SageMakerRegistry(sagemaker).set_card("arn:1", "x" * 100_001)
