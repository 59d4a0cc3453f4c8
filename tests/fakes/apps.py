"""Small Flower apps, written to a folder."""

from __future__ import annotations

import textwrap
from pathlib import Path

from edge.training.app_bundle import FlowerApp, load_app

CLIENT = """
from flwr.clientapp import ClientApp
app = ClientApp()
"""
SERVER = """
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

@app.main()
def main(grid, context):
    initial = ArrayRecord({
        "w": Array(np.linspace(0, 1, 5, dtype=np.float32)), "n": Array(np.array(3, np.int64))
    })
    rounds = context.run_config["num-server-rounds"]
    FedAvg().start(grid=grid, initial_arrays=initial, num_rounds=rounds)
    context.state["losses"] = ConfigRecord({"step": [1, 2], "loss": [0.5, 0.25]})
"""


def write_app(
    folder: Path, *, server: str = SERVER, client: str = CLIENT, settings: str = ""
) -> FlowerApp:
    """An app of one package; an empty ``server`` leaves the ServerApp out.

    The package's name is the folder's, so that apps of several tests do not share modules.
    """
    name = folder.name.replace("-", "_")
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "client_app.py").write_text(client)
    components = f'clientapp = "{name}.client_app:app"\n'
    if server:
        (package / "server_app.py").write_text(server)
        components += f'serverapp = "{name}.server_app:app"\n'
    (folder / "pyproject.toml").write_text(
        textwrap.dedent(f"""
        [project]
        name = "{name}"
        version = "1.0.0"

        [tool.flwr.app]
        publisher = "tests"

        [tool.flwr.app.components]
        """)
        + components
        + "\n[tool.flwr.app.config]\nnum-server-rounds = 3\n"
        + f"\n[tool.mledgeops]\n{settings}\n"
    )
    return load_app(folder)
