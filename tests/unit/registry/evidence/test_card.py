"""The model card: a page that is safe to open, and SageMaker's document."""

from __future__ import annotations

import json
import re

import msgspec
from fakes.evidence import evidence

from registry.evidence.card import MODEL_CARD_LIMIT, model_card, page
from registry.evidence.prechecks import check
from registry.policy import PrecheckPolicy


def test_the_page_holds_all_of_it_and_escapes_what_others_have_named() -> None:
    found = evidence(champion=4.0)
    nasty = "<script>alert(1)</script>"
    device = msgspec.structs.replace(found.compared.worst[0], device=nasty)
    group = msgspec.structs.replace(found.compared.groups[0], name=nasty)
    compared = msgspec.structs.replace(found.compared, worst=[device], groups=[group])
    html = page(
        msgspec.structs.replace(found, compared=compared, description=nasty),
        check(found, PrecheckPolicy()),
    )
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    for text in (
        "Prechecks",
        "Against the champion",
        "Participation",
        "Lineage",
        "Licence",
        found.lineage.model_digest,
        "x/1",
    ):
        assert text in html
    assert html.count("<svg") >= 5
    assert "http" not in re.sub(r"<svg[^>]*>", "", html)  # nothing is loaded from elsewhere


def test_without_a_comparison_the_page_says_why() -> None:
    found = evidence(None, reason="The app runs its own rounds.")
    assert "The app runs its own rounds." in page(found, check(found, PrecheckPolicy()))


def test_sagemakers_card_has_the_verdict_the_groups_and_the_rounds_within_its_limit() -> None:
    found = evidence(champion=4.0)
    long = msgspec.structs.replace(found, description="d" * 5000, intended_use="u" * 5000)
    card = model_card(long, check(found, PrecheckPolicy()), "s3://bucket/card.html")
    assert len(json.dumps(card)) <= MODEL_CARD_LIMIT
    (job,) = card["evaluation_details"]
    assert [group["name"] for group in job["metric_groups"]] == ["devices", "groups", "rounds"]
    assert job["metadata"] == {"evidence": "s3://bucket/card.html", "champion": "x/1"}
    assert set(card["model_overview"]) <= {"model_creator", "model_artifact"}, "a package's schema"
    assert len(card["additional_information"]["custom_details"]["description"]) == 255
    assert len(card["intended_uses"]["intended_uses"]) == 2048
