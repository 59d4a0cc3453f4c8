"""``python -m compatibility``: writes the document's lists, or runs all apps elsewhere.

``write`` writes the lists of docs/compatibility.md. ``local-cloud`` runs the apps on one cloud
(two minutes of start and enrolment, then about ten seconds each), and ``simulation`` in Flower's
simulation engine, which needs Ray. NAMES choose apps. It prints a line for each and exits with 1
when one differs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from compatibility import cloud_engine, flower_engine, report
from compatibility.catalogue import CATALOGUE, App
from compatibility.our_engine import cohorts_of
from pipelines.local.cloud import LocalCloud
from pipelines.local.home import Home

Compare = Callable[[App, Path], list[str]]
"""Runs an app twice in a folder; returns the differences."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="compatibility", description=__doc__)
    parser.add_argument("command", choices=["write", "local-cloud", "simulation"])
    parser.add_argument("names", nargs="*", metavar="NAMES", help="apps (default: all)")
    given = parser.parse_args()
    if given.command == "write":
        report.write()
        return 0
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    apps = [app for app in CATALOGUE if not given.names or app.name in given.names]
    if given.command == "local-cloud":
        with _on_local_cloud() as compare:
            return _compared(apps, compare)
    return _compared([app for app in apps if not app.ordered], _in_simulation)


def _compared(apps: Sequence[App], compare: Compare) -> int:
    failed = 0
    for app in apps:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = compare(app, Path(folder))
            except Exception as error:  # the next app may do better
                found = [f"{type(error).__name__}: {error}"]
        failed += bool(found)
        print(f"{app.name}: {found or 'equal'} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{len(apps) - failed} of {len(apps)} are equal")
    return 1 if failed else 0


@contextmanager
def _on_local_cloud() -> Iterator[Compare]:
    with (
        tempfile.TemporaryDirectory() as home,
        LocalCloud.start(Home(Path(home))) as cloud,
        cloud.reached(),
    ):

        def compare(app: App, folder: Path) -> list[str]:
            written = app.write(folder / "app")
            ours, nodes = cloud_engine.run(cloud, written)
            flowers = flower_engine.run(written, nodes, _empty(folder / "flower"))
            return app.differences(ours, flowers, files=False)

        yield compare


def _in_simulation(app: App, folder: Path) -> list[str]:
    from compatibility import simulation_engine

    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    written = app.write(folder / "app")
    simulated = simulation_engine.run(written, _empty(folder / "simulation"))
    nodes = [member for cohort in cohorts_of(written) for member in cohort.members]
    flowers = flower_engine.run(written, nodes, _empty(folder / "flower"))
    return app.differences(simulated, flowers)


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


code = main()
sys.stdout.flush()
# After a failure Flower's simulation engine leaves a thread behind that waits for ever.
os._exit(code)
