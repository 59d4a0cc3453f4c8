"""What must hold after an accident. Each violation is one sentence."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

from edge.typed import convert
from pipelines.chaos.accidents.accident import Scene
from pipelines.chaos.accidents.shell import RUN, Said, Shell
from pipelines.local.home import CloudInfo
from pipelines.local.processes import port_in_use

GONE_SECONDS = 25.0
"""A child whose parent was killed ends by itself after at most 15 s."""
SHOWN = 300


def told(said: Said, codes: Collection[int], word: str = "") -> Iterator[str]:
    """A command ended with one of the exit codes, and without a traceback. One that failed said
    why, with ``word`` in it.
    """
    text = f"{said.document.get('reason', '')} {said.complaint}"
    shown = " ".join(text.split())[-SHOWN:]
    if said.code not in codes:
        yield f"it ended with {said.code} after {said.seconds:.0f} s: {shown}"
    elif "Traceback" in said.complaint or "bug in MLEdgeOps" in text:
        yield f"it ended with a traceback: {shown}"
    elif said.code in (1, 2) and word not in text:
        yield f"it does not say {word!r}: {shown}"


def nothing_left(scene: Scene, shell: Shell, info: CloudInfo | None) -> Iterator[str]:
    """No process of the home runs, and the ports of the cloud that was there are free."""
    deadline = time.monotonic() + scene.patience(GONE_SECONDS)
    while (left := shell.processes()) and time.monotonic() < deadline:
        time.sleep(0.3)
    if left:
        yield f"{len(left)} processes are left, such as {left[0].pid}"
    ports = [info.gateway_port, info.mqtt_port, info.sagemaker_port] if info else []
    if taken := [port for port in ports if port_in_use(port)]:
        yield f"the ports {taken} are in use"
    if shell.home.info() is not None:
        yield "the home says that a cloud is running"


def all_ended(shell: Shell, known: Collection[str] = ()) -> Iterator[str]:
    """Every run of the home has an end, and those in ``known`` are listed."""
    said = shell.run("runs", "--json")
    yield from told(said, (0,))
    runs = _runs(said)
    for run in runs:
        if run["status"] not in ("Succeeded", "Failed", "Stopped"):
            yield f"{run['run_id']} is {run['status']} though nothing is under way"
    if lost := set(known) - {str(run["run_id"]) for run in runs}:
        yield f"the runs {sorted(lost)} are not listed any more"


def works_again(shell: Shell) -> Iterator[str]:
    """A new run succeeds."""
    said = shell.run(*RUN)
    if said.document.get("status") != "Succeeded":
        yield from told(said, (0,))
        yield f"a run afterwards is {said.document.get('status')}: {said.document.get('reason')}"


def known_runs(shell: Shell) -> list[str]:
    """Ids of the runs that the home lists."""
    return [str(run["run_id"]) for run in _runs(shell.run("runs", "--json"))]


def _runs(said: Said) -> list[dict[str, object]]:
    return convert(said.document.get("runs", []), list[dict[str, object]])
