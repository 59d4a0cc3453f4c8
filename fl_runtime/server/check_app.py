"""``python -m fl_runtime.server.check_app FOLDER STRATEGY PARAMETERS``: can this app run at all?

In a process of its own, since the app's modules are imported. Prints one sentence and exits 2 when
not.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import msgspec

from edge.training.app_bundle import AppError, load_app
from fl_runtime.run.errors import RunFailed


def check(folder: Path, strategy: str, parameters: dict[str, bool | int | float | str]) -> None:
    """Import both components and build the strategy; raises AppError or RunFailed."""
    from flwr.clientapp import ClientApp

    from edge.training.app_modules import load_component
    from fl_runtime.server.app import server_app_of
    from fl_runtime.server.rounds.strategies import build

    if strategy:
        build(strategy, parameters, devices=2)
    app = load_app(folder)
    load_component(app.folder, app.client_app, ClientApp)
    server_app_of(app)


def main() -> int:
    """Exit 0 when the app can run, 2 when not."""
    logging.disable()
    folder, strategy, parameters = sys.argv[1:4]
    try:
        check(Path(folder), strategy, msgspec.json.decode(parameters))
    except (AppError, RunFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
