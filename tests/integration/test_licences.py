"""Each part's bill of materials names the licence of each package."""

from __future__ import annotations

from email.message import Message

import pytest

from pipelines.aws.licences import UNKNOWN, add_licences, licence_of, licences
from pipelines.aws.pins import PARTS, pins


def package(**fields: str) -> Message:
    message = Message()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize("part", PARTS)
def test_every_package_of_a_part_has_a_licence(part: str) -> None:
    found = licences(part)
    assert list(found) == pins(part)
    assert UNKNOWN not in found.values()


def test_the_expression_goes_before_classifiers_and_these_before_the_text() -> None:
    classifier = "License :: OSI Approved :: MIT License"
    both = package(License_Expression="MIT", Classifier=classifier, License="text")
    assert licence_of(both) == "MIT"
    assert licence_of(package(Classifier=classifier, License="x")) == "MIT License"
    assert licence_of(package(License="BSD\nCopyright")) == "BSD"
    assert licence_of(package(License="x" * 101)) == UNKNOWN
    text = "Permission is hereby granted, free of charge, to any person obtaining a copy\nof"
    assert licence_of(package(), text) == "MIT License"


def test_a_bill_names_the_licences() -> None:
    bill = {"components": [{"name": "six", "version": "1"}]}
    add_licences(bill, {"six==1": "MIT"})
    assert bill["components"][0]["licenses"] == [{"license": {"name": "MIT"}}]
