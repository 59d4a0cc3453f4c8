"""``python -m support.device_writes DISK OUTSIDE``: a device that rotates its certificate, installs
models and keeps replies, without end, on a disk whose power will be cut.

Says on standard output what has been done, a line each: ``pair N``, ``model N``, ``reply N``.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from fakes.certificates import self_signed
from fakes.keys import a_manifest, document, trust
from fakes.objects import FileObjects

from edge.agent.spool import Spool
from edge.identity.credentials import Credentials
from edge.identity.trust import Trust
from edge.serving.model_store import ModelStore


def weights_of(number: int) -> bytes:
    return b"weights %d" % number * 1000


def models(disk: Path, outside: Path, number: int) -> ModelStore:
    """The device's models; what it downloads are the weights of a number."""
    outside.mkdir(parents=True, exist_ok=True)
    objects = FileObjects(outside)
    objects.data["url"] = weights_of(number)
    trust(outside / "trust.json")
    return ModelStore(disk / "models", objects, Trust.of(outside / "trust.json"), "f")


def install(disk: Path, outside: Path, number: int) -> None:
    async def test(*_: object) -> float:
        return 0.9

    store = models(disk, outside, number)
    asyncio.run(store.install(document(a_manifest(weights_of(number), number)), test))


def main(disk: Path, outside: Path) -> None:
    pairs = []
    for name in ("a", "b"):
        (outside / name).mkdir(parents=True)
        files = self_signed(outside / name)
        key, certificate = Path(files["private_key"]), Path(files["certificate"])
        pairs.append((key.read_bytes(), certificate.read_text()))
    credentials, spool = Credentials(disk / "credentials"), Spool(disk / "spool")
    for number in itertools.count(1):
        credentials.use(credentials.store(f"pair-{number}", *pairs[number % 2]))
        credentials.settle()
        print("pair", number, flush=True)
        install(disk, outside, number)
        print("model", number, flush=True)
        spool.keep(f"m{number}", b"reply %d" % number)
        print("reply", number, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
