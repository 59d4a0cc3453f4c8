"""SageMaker's model card, under the SDK's own classes."""

from __future__ import annotations

from fakes.evidence import evidence
from sagemaker.model_card import (
    AdditionalInformation,
    EvaluationJob,
    IntendedUses,
    ModelOverview,
    TrainingDetails,
)

from registry.evidence.card import model_card
from registry.evidence.prechecks import check
from registry.policy import PrecheckPolicy


def test_the_model_card_is_sagemakers() -> None:
    found = evidence(champion=4.0)
    card = model_card(found, check(found, PrecheckPolicy()), "s3://bucket/card.html")
    kinds = {
        "model_overview": ModelOverview,
        "intended_uses": IntendedUses,
        "training_details": TrainingDetails,
        "additional_information": AdditionalInformation,
    }
    for part, kind in kinds.items():  # the classes refuse what the schema does not know
        kind(**card[part])
    job = EvaluationJob(**card["evaluation_details"][0])
    assert job.name == "Federated evaluation on the devices"
