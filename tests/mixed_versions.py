"""Agents of one version with a cloud of another: ``python tests/mixed_versions.py``.

``make mixed-versions``. Builds wheels of 0.4 and of this checkout, installs each into an
environment of its own, and does with a local cloud of one and agents of the other what users do:
enrol, train, install a model, on devices that 0.4 enrolled and on new ones. Each step must work, or
be refused in time by a sentence. Prints what came of each; exits 1 when one did neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLD_COMMIT = "c7f0dcb"
"""Version 0.4.0."""
COPIED = ("edge", "fl_runtime", "registry", "pipelines", "setup.cfg", "pyproject.toml")
APP = ROOT / "notebooks" / "apps" / "digits"
FLEET = APP.name
RUN = ("run", str(APP), "--devices", "2", "--phase-seconds", "60", "--deadline-seconds", "30")
HEARTBEATS_SECONDS = 8.0
_SENTENCE = re.compile(r"[A-Za-z].* .*[.:]$")
STEP_SECONDS = 240.0
"""Longest that a step may take: a refusal that comes later is none."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """An installed wheel."""

    name: str
    python: Path

    def run(self, program: str, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
        """One of its programs, on the local cloud of a home."""
        environment = {
            "PATH": os.environ["PATH"],
            "MLEDGEOPS_HOME": str(home),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [str(self.python.with_name(program)), *arguments],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS + 60,
        )


@dataclass
class Steps:
    """Runs steps on one home, and judges how they end."""

    home: Path
    agents: str = ""
    """Version of the agents that run."""
    broken: list[str] = field(default_factory=list)

    def __call__(self, version: Version, *arguments: str, program: str = "mledgeops") -> None:
        """Run a command of a version, and print what came of it."""
        started = time.monotonic()
        done = version.run(program, *arguments, home=self.home)
        took = time.monotonic() - started
        sentence = _sentence(done)
        if done.returncode == 0:
            outcome = "works"
        elif sentence and done.returncode in (1, 2) and took <= STEP_SECONDS:
            outcome = f"refused after {took:.0f} s: {sentence}"
        else:
            outcome = f"BROKEN, exit {done.returncode} after {took:.0f} s: {done.stderr[-2000:]}"
            self.broken.append(arguments[0])
        what = " ".join([program, *(Path(item).name for item in arguments[:2])])
        beside = f", agents {self.agents}" if self.agents else ""
        print(f"{version.name}{beside}: {what}: {outcome}", flush=True)


def _sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that failed says: its last sentence; empty for a traceback."""
    if "Traceback" in done.stderr:
        return ""
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    return next((line.strip() for line in reversed(lines) if _SENTENCE.search(line)), "")


def built(source: Path, name: str, folder: Path) -> Version:
    """Build a wheel of a source folder, and install it beside this environment's packages."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheels = folder / f"wheels-{name}"
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run([*pip, "wheel", *options], check=True)
    place = folder / name
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    # The libraries of this environment. Its own .pth files do not count, so that nothing is
    # imported from this checkout.
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "libraries.pth").write_text(f"{here}\n")
    python = place / "bin" / "python"
    (wheel,) = wheels.glob("*.whl")
    install = [*pip, "--python", str(python), "install", "--no-deps", "--force-reinstall"]
    subprocess.run([*install, str(wheel)], check=True)
    return Version(name=name, python=python)


def versions(folder: Path) -> tuple[Version, Version]:
    """0.4, and this checkout."""
    old, new = folder / "source-old", folder / "source-new"
    for source in (old, new):
        source.mkdir()
    archive = subprocess.run(["git", "archive", OLD_COMMIT], cwd=ROOT, capture_output=True)
    if archive.returncode:
        sys.exit(f"The commit {OLD_COMMIT} is not in this clone: fetch the whole history.")
    subprocess.run(["tar", "-x", "-C", str(old)], input=archive.stdout, check=True)
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, new / name)
    return built(old, "0.4", folder), built(new, "new", folder)


@contextlib.contextmanager
def agents(version: Version, steps: Steps) -> Iterator[None]:
    """Run a version's agents of the devices in a home, and print what they refuse."""
    devices, port = steps.home / "devices" / FLEET, _mqtt_port(steps.home)
    processes, logs = [], []
    # The lock tells the cloud's commands that the fleet runs already.
    with (devices / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for file in sorted(devices.glob("*/device.json")):
            # The broker of a cloud that was started again has another port.
            file.write_text(re.sub(r'"port": ?[0-9]+', f'"port": {port}', file.read_text()))
            logs.append(file.with_name(f"agent-{version.name}.log"))
            with logs[-1].open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        [str(version.python.with_name("mledgeops-agent")), str(file)],
                        stdout=output,
                        stderr=output,
                        cwd=steps.home,
                        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
                    )
                )
        steps.agents = version.name
        time.sleep(HEARTBEATS_SECONDS)
        try:
            yield
        finally:
            steps.agents = ""
            for process in processes:
                process.terminate()
                process.wait(timeout=60)
    told = "".join(log.read_text(errors="replace") for log in logs)
    reasons = [*re.findall(r'"reason": ?"([^"]+)"', told), *re.findall(r"(?m)^[A-Z/].*\.$", told)]
    for reason in dict.fromkeys(reasons):
        print(f"agents {version.name} say: {reason}", flush=True)


def _mqtt_port(home: Path) -> int:
    port: int = json.loads((home / "cloud.json").read_text())["mqtt_port"]
    return port


def enrolled_by_0_4(old: Version, new: Version, home: Path) -> list[str]:
    """Devices of 0.4: their agents are upgraded before the cloud, then the cloud before them."""
    steps = Steps(home)
    steps(old, "local", "up")
    for rounds in ("1", "2", "3"):
        steps(old, *RUN, "--rounds", rounds)
    with agents(new, steps):
        use(old, steps, "1")
    steps(old, "local", "down")
    steps(new, "local", "up")
    with agents(old, steps):
        use(new, steps, "2")
    with agents(new, steps):
        use(new, steps, "3")
    steps(new, "local", "down")
    return steps.broken


def enrolled_anew(cloud: Version, other: Version, home: Path) -> list[str]:
    """A cloud enrols devices of another version, by claim and by itself."""
    steps = Steps(home)
    steps(cloud, "local", "up")
    claims, device = home / "claims", home / "press-1"
    folders = ["--out", str(claims), "--device-home", str(device)]
    steps(cloud, "devices", "expect", "press-1", "--fleet", "hall", *folders)
    steps(other, str(_installed(claims, device)), program="mledgeops-enrol")
    steps(cloud, *RUN, "--rounds", "1")
    with agents(other, steps):
        use(cloud, steps, "1")
    steps(cloud, "local", "down")
    return steps.broken


def _installed(claims: Path, device: Path) -> Path:
    """Put a device's files where ``edge/systemd/install.sh`` does; returns its claim file."""
    shutil.copytree(claims / "current", device / "claim")
    for name in ("ca.pem", "trust.json"):
        shutil.copyfile(claims / name, device / name)
    return Path(shutil.copyfile(claims / f"{device.name}.json", device / "claim" / "claim.json"))


def use(cloud: Version, steps: Steps, version: str) -> None:
    """What a user does with devices."""
    steps(cloud, "fleet")
    steps(cloud, *RUN, "--rounds", "2")
    steps(cloud, "approve", f"{FLEET}/{version}", "--reason", "mixed versions")


def main(arguments: Sequence[str]) -> int:
    """Try all; ``--keep FOLDER`` keeps homes and logs there."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments[1]).resolve() if arguments[:1] == ["--keep"] else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        old, new = versions(folder)
        homes = [folder / name for name in ("home-0.4", "home-new", "home-0.4-again")]
        for home in homes:
            home.mkdir()
        broken = enrolled_by_0_4(old, new, homes[0])
        broken += enrolled_anew(new, old, homes[1]) + enrolled_anew(old, new, homes[2])
    print(f"{len(broken)} steps neither worked nor were refused by a sentence.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
