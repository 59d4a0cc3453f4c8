"""The pinned requirements of one part of the product.

Versions are those of this environment, which is installed from requirements.lock. Container images,
functions and devices install these lists.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PARTS = {"server": "server", "proxy": "proxy", "device": "device", "functions": "functions"}
"""The extra of setup.cfg that each part installs."""

SERVER_SIDE_OF_FLOWER = frozenset(
    {
        "alembic",
        "annotated-doc",
        "annotated-types",
        "fastapi",
        "greenlet",
        "httptools",
        "mako",
        "markupsafe",
        "pathspec",
        "prompt-toolkit",
        "pydantic",
        "pydantic-core",
        "python-dotenv",
        "pyyaml",
        "requests",
        "charset-normalizer",
        "urllib3",
        "sqlalchemy",
        "starlette",
        "typing-inspection",
        "uv",
        "uvicorn",
        "uvloop",
        "watchfiles",
        "wcwidth",
        "websockets",
    }
)
"""What flwr needs for its own server, database and command line. No device imports them, and they
are half of the installation.
"""


def pins(part: str, distribution: str = "mledgeops") -> list[str]:
    """``name==version`` of everything that a part needs, sorted, without the distribution itself.
    Raises KeyError for an unknown part.
    """
    found: dict[str, str] = {}
    _collect(distribution, PARTS[part], found)
    found.pop(canonicalize_name(distribution), None)
    if part == "device":
        found = {
            name: version for name, version in found.items() if name not in SERVER_SIDE_OF_FLOWER
        }
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _collect(distribution: str, extra: str, found: dict[str, str]) -> None:
    for requirement in _requirements(distribution, extra):
        name = canonicalize_name(requirement.name)
        new = name not in found
        found[name] = metadata.version(name)
        if new:
            _collect(name, "", found)
        for wanted in requirement.extras:
            _collect(name, wanted, found)


def _requirements(distribution: str, extra: str) -> Iterator[Requirement]:
    """What a distribution and its extra require on Linux with this Python."""
    for text in metadata.requires(distribution) or []:
        requirement = Requirement(text)
        if requirement.marker is None or Marker(str(requirement.marker)).evaluate({"extra": extra}):
            yield requirement


def main() -> int:
    """``python -m pipelines.aws.pins PART`` prints the list."""
    for line in pins(sys.argv[1]):
        sys.stdout.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
