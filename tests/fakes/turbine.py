"""A device's folder with an app that predicts, and models for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np

from edge.identity.trust import Trust
from edge.protocol.messages import (
    Serving,
)
from edge.protocol.records import (
    Records,
    digest,
    encode_records,
)
from edge.protocol.signed import Manifest
from edge.serving.model_store import ModelStore
from edge.serving.statistics import serving
from fakes.keys import document, trust
from fakes.objects import FileObjects

PREDICT = """
import numpy as np

def predict(arrays, inputs):
    table = inputs if isinstance(inputs, np.ndarray) else inputs.to_numpy(float)
    if table.shape[1] == 3:
        raise ValueError("three columns are one too many")
    if table.shape[1] == 5:
        import os
        os._exit(9)
    return table.sum(axis=1) * float(arrays["w"][0])
"""


class Turbine:
    """A device's folder with an app and models."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        trust(home / "trust.json")
        (home / "cache").mkdir(exist_ok=True)
        self.objects = FileObjects(home / "cache")
        self.store = ModelStore(
            home / "models", self.objects, Trust.of(home / "trust.json"), "f", lambda: 1000.0
        )
        self.sequence = 0

    def app(self, code: str = PREDICT, reference: str = "power:predict") -> str:
        name = digest((code + reference).encode())
        folder = self.home / "apps" / name
        folder.mkdir(parents=True)
        (folder / "power.py").write_text(code)
        hook = f'[tool.mledgeops]\npredict = "{reference}"\n' if reference else ""
        (folder / "pyproject.toml").write_text(
            '[project]\nname = "power"\n[tool.flwr.app.components]\n'
            f'clientapp = "power:app"\n{hook}'
        )
        return name

    def use(self, factor: float, app: str) -> None:
        self.sequence += 1
        weights = encode_records(Records(arrays={"arrays": {"w": np.array([factor], np.float32)}}))
        manifest = Manifest(
            fleet="f",
            model_version=f"power/{self.sequence}",
            digest=digest(weights),
            size=len(weights),
            app=app,
            metric="rmse",
            goal="minimize",
            tolerance=0.0,
            sequence=self.sequence,
            forced=True,
        )
        self.objects.data["url"] = weights

        async def test(*_: Any) -> float:
            return 0.0

        asyncio.run(self.store.install(document(manifest), test))

    def serving(self) -> Serving:
        found = serving(self.home / "serving", self.sequence)
        assert found is not None
        return found


async def ask(path: str, *lines: bytes) -> list[dict]:
    """Send lines to a device's socket, and return the answers."""
    reader, writer = await asyncio.open_unix_connection(path, limit=2**22)
    answers = []
    for line in lines:
        writer.write(line + b"\n")
        answers.append(json.loads(await reader.readline() or b"{}"))
    writer.close()
    return answers
