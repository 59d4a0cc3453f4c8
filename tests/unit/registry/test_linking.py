"""Linking: each registry names the other, and the evidence is published with the tag last."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.evidence import comparison, leave, package
from fakes.objects import MemoryObjects
from fakes.registries import MemoryModels, MemorySageMaker

from fl_runtime.run.errors import ObjectMissing
from fl_runtime.run.keys import model_key
from registry.evidence.collect import CARD
from registry.linking import Linking
from registry.mlflow_registry import MlflowRegistry, RunArtifacts
from registry.model_version import CARD_TAG, CHECKS_TAG, GOAL, METRIC
from registry.policy import PrecheckPolicy
from registry.provenance import EVIDENCE
from registry.sagemaker_registry import SageMakerRegistry


class Bench:
    def __init__(self, **policy: Any) -> None:
        self.objects, self.models, self.sagemaker = Bucket(), MemoryModels(), MemorySageMaker()
        self.package = package()
        self.sagemaker.add(self.package.arn, **self.package.metadata)
        self.linking = Linking(
            mlflow=MlflowRegistry(self.models),
            artifacts=RunArtifacts(self.models),
            sagemaker=SageMakerRegistry(self.sagemaker),
            objects=self.objects,  # type: ignore[arg-type]
            heartbeats=lambda _: [],
            prechecks=PrecheckPolicy(**policy),
        )

    def tags(self) -> dict[str, str]:
        return self.models.items["x", "1"].tags

    def metadata(self) -> dict[str, str]:
        return self.sagemaker.packages[self.package.arn]["CustomerMetadataProperties"]


class Bucket(MemoryObjects):
    bucket = "b"


def test_each_registry_names_the_other_and_a_retry_makes_no_second_version() -> None:
    bench = Bench()
    assert bench.linking.link(bench.package) == bench.linking.link(bench.package) == "1"
    found = SageMakerRegistry(bench.sagemaker).get(bench.package.arn)
    assert found.model_version == "x/1"
    assert [v.model_package_arn for v in bench.linking.mlflow.versions()] == [bench.package.arn]


def test_evidence_is_published_everywhere() -> None:
    bench = Bench()
    leave(bench.objects, comparison())
    bench.linking.give_evidence(bench.package, bench.linking.link(bench.package))
    uri = f"s3://b/{model_key('run-1', CARD)}"
    assert bench.tags()[CHECKS_TAG] == bench.metadata()[CHECKS_TAG] == "passed"
    assert bench.tags()[CARD_TAG] == bench.metadata()[CARD_TAG] == uri
    assert (bench.tags()[METRIC], bench.tags()[GOAL]) == ("loss", "minimize")
    assert list(bench.tags())[-1] == CHECKS_TAG, "reconcile takes it as the sign that all is done"
    assert {name.rpartition("/")[2] for name in bench.models.artifacts} == {CARD, EVIDENCE}
    assert "ModelCard" in bench.sagemaker.packages[bench.package.arn]


def test_a_repeated_step_keeps_the_evidence_that_was_collected() -> None:
    bench = Bench()
    leave(bench.objects, comparison())
    number = bench.linking.link(bench.package)
    bench.linking.give_evidence(bench.package, number)
    first = bench.objects.data[model_key("run-1", EVIDENCE)]
    leave(bench.objects, comparison(champion=4.2))
    bench.linking.give_evidence(bench.package, number)
    assert bench.objects.data[model_key("run-1", EVIDENCE)] == first


def test_failed_prechecks_are_written_down_and_a_run_that_left_nothing_is_an_error() -> None:
    bench = Bench(participants=7)
    number = bench.linking.link(bench.package)
    with pytest.raises(ObjectMissing):
        bench.linking.give_evidence(bench.package, number)
    leave(bench.objects, comparison())
    bench.linking.give_evidence(bench.package, number)
    assert bench.tags()[CHECKS_TAG].startswith("1 of 7 prechecks fail: participants")
    assert len(bench.metadata()[CHECKS_TAG]) <= 256
