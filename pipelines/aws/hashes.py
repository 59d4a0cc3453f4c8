"""The hashes in requirements.lock: pip installs nothing but the files that they name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_name

LOCK = Path(__file__).with_name("requirements.lock")
"""A link to the checkout's lock, and a copy of it in a wheel."""
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")

Pins = dict[str, set[str]]
"""Hashes of all files of a release, by ``name==version``, or ``name==version ; marker``."""


def read_lock(text: str) -> Pins:
    """The pins of a lock, in its order and spelling, with their hashes."""
    pins: Pins = {}
    pin = ""
    for line in text.splitlines():
        if "==" in line and not line.startswith("#"):
            pin = line.removesuffix("\\").strip()
            pins[pin] = set()
        if pin:
            pins[pin].update(_HASH.findall(line))
    return pins


def canonical(pin: str) -> str:
    """A pin with its name as pip compares names, and without its marker."""
    name, version = pin.partition(";")[0].strip().split("==")
    return f"{canonicalize_name(name)}=={version}"


def requirement(pin: str, hashes: Iterable[str]) -> str:
    """A pin with its hashes, as pip's requirements files hold it."""
    return " \\\n    ".join([pin, *(f"--hash={item}" for item in sorted(hashes))])


def hashed(pins: Iterable[str]) -> list[str]:
    """Pins with the lock's hashes. Raises KeyError for a pin that the lock does not have."""
    known = {canonical(pin): hashes for pin, hashes in read_lock(LOCK.read_text()).items()}
    return [requirement(pin, known[canonical(pin)]) for pin in pins]


def constraints() -> list[str]:
    """All pins of the lock, without hashes: what an app's own dependencies must agree with."""
    return list(read_lock(LOCK.read_text()))
