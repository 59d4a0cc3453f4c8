"""The licences of what a part of the product installs, from the packages' own metadata."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.aws.pins import pins

UNKNOWN = "unknown"
_CLASSIFIER = "License :: "
_LONGEST = 100
"""Some packages put the licence's whole text into the field for its name."""

_MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy"


def licence_of(package: Any, file: str = "") -> str:
    """A package's licence: its SPDX expression, else its classifiers, else the free text, else
    what its licence file (``file``: its content) is known by.
    """
    expression = package.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [
        text.rsplit(" :: ", 1)[-1]
        for text in package.get_all("Classifier") or []
        if text.startswith(_CLASSIFIER)
    ]
    lines = (package.get("License") or "").strip().splitlines()
    free = lines[0].strip() if lines and len(lines[0]) <= _LONGEST else ""
    named = [text for text in classifiers if text != "OSI Approved"]
    return " AND ".join(named) or free or ("MIT License" if _MIT in file else UNKNOWN)


def licences(part: str) -> dict[str, str]:
    """The licence of each pin of a part. Raises KeyError for an unknown part."""
    found = {}
    for pin in pins(part):
        package = metadata.distribution(pin.split("==")[0])
        found[pin] = licence_of(package.metadata, _licence_file(package))
    return found


def _licence_file(package: metadata.Distribution) -> str:
    """The content of a package's licence file; empty without one."""
    for file in package.files or []:
        if file.name.upper().startswith("LICEN") and ".dist-info" in file.parts[0]:
            return file.read_text()
    return ""


def add_licences(bill: dict[str, Any], found: dict[str, str]) -> None:
    """Name the licences in a CycloneDX bill of materials."""
    for component in bill["components"]:
        licence = found.get(f"{component['name']}=={component['version']}", UNKNOWN)
        component["licenses"] = [{"license": {"name": licence}}]


def main() -> int:
    """``python -m pipelines.aws.licences PART SBOM`` completes the bill and prints the list."""
    part, file = sys.argv[1], Path(sys.argv[2])
    found = licences(part)
    bill = json.loads(file.read_text())
    add_licences(bill, found)
    file.write_text(json.dumps(bill, indent=2) + "\n")
    for pin, licence in found.items():
        sys.stdout.write(f"{pin}  {licence}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
