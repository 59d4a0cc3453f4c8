"""What a rehearsal saw, for the rules to judge."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pipelines.aws.rehearsal.values import Place, Resource

_SYMBOL = re.compile(rb"GLIBC_(\d+)\.(\d+)")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The functions' zip."""

    unzipped: int
    """Bytes."""
    glibc: Mapping[str, tuple[int, int]]
    """The newest version of glibc that a library needs, by its file."""


def read_bundle(code: bytes) -> Bundle:
    """Look into the functions' zip."""
    needed, unzipped = {}, 0
    with zipfile.ZipFile(io.BytesIO(code)) as archive:
        for info in archive.infolist():
            unzipped += info.file_size
            if ".so" in info.filename:
                versions = _SYMBOL.findall(archive.read(info))
                if versions:
                    needed[info.filename] = max((int(a), int(b)) for a, b in versions)
    return Bundle(unzipped=unzipped, glibc=needed)


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """One deployment into a new account, and what came of repeating it."""

    prefix: str
    place: Place
    resources: tuple[Resource, ...]
    """Of all stacks, in the order in which they were created."""
    calls_before: Mapping[str, frozenset[str]]
    """Calls (``iam:CreateServiceLinkedRole``) that were made before a stack was created."""
    template_bytes: Mapping[str, int]
    """By stack."""
    zones_of_services: Mapping[str, tuple[str, ...]]
    """Zones in which an endpoint service is offered, by its name."""
    taken: tuple[tuple[str, str], ...] = ()
    """Where a repeated deployment would find a name taken, and what would happen."""
    lost_keys: tuple[tuple[str, str], ...] = ()
    """Where a repeated deployment would sign by another key than devices trust."""
    bundle: Bundle | None = None
    """None: not looked at."""
    images: Mapping[str, str]
    """Dockerfiles by task; empty: not looked at."""

    def of_type(self, *types: str) -> Iterator[Resource]:
        """The resources of some types."""
        return (resource for resource in self.resources if resource.type in types)


Check = Callable[[Rehearsed], Iterator[tuple[str, str]]]
"""Yields where (stack and resource, or file) and what is refused."""
