"""Every target for a while: ``python -m fuzz.campaign --seconds 3600 [--keep]`` (``make fuzz``).

Each target runs in a process of its own, under atheris where it is installed and by the mutations
in pure Python elsewhere. Prints executions, coverage and findings; exits 1 when there is a finding.
``--keep`` adds what reached new code to the committed corpus.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.seeds import seeds
from fuzz.targets import CORPUS, TARGETS, kept, measured
from pipelines.chaos.devices.mutations import LONGEST, TOKENS, mutated

KEPT_BYTES = 50_000
"""Of each target's committed corpus, the smallest inputs first."""
LONGEST_INPUT = 4096
MEMORY_MIB = 2048
HANG_SECONDS = 20


@dataclass
class Result:
    """What fuzzing a target came to."""

    executions: int = 0
    edges: int = 0
    findings: list[str] = field(default_factory=list)


def main() -> int:
    """Fuzz, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="for all targets together")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only these")
    parser.add_argument("--keep", action="store_true", help="add to the committed corpus")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    each = max(1, int(options.seconds / len(names)))
    fuzz = _by_atheris if importlib.util.find_spec("atheris") else _by_mutation
    print(f"{'target':16} {'executions':>12} {'edges':>7} {'findings':>9}", flush=True)
    results = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            result = fuzz(name, each, Path(folder))
            if options.keep:
                _keep(name, Path(folder) / "new")
        results.append(result)
        edges = result.edges or "-"
        print(f"{name:16} {result.executions:12,} {edges:>7} {len(result.findings):9}", flush=True)
    total, findings = sum(r.executions for r in results), [f for r in results for f in r.findings]
    print(f"{'all':16} {total:12,} {sum(r.edges for r in results):7} {len(findings):9}")
    print("\n\n".join(findings))
    return 1 if findings else 0


def _by_atheris(name: str, seconds: int, folder: Path) -> Result:
    new, known, found = folder / "new", folder / "known", folder / "found"
    for part in (new, known, found):
        part.mkdir()
    for number, data in enumerate((*seeds(name), *kept(name))):
        (known / f"{number:05d}").write_bytes(data)
    words = folder / "words"
    tokens = (token for token in TOKENS if len(token) <= 64)
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in tokens))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fuzz.harness", name, str(new), str(known)),
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST_INPUT}",
            f"-rss_limit_mb={MEMORY_MIB}",
            f"-timeout={HANG_SECONDS}",
            f"-dict={words}",
            f"-artifact_prefix={found}/",
            "-print_final_stats=1",
            "-reload=0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    text = done.stdout.decode("utf-8", "replace")
    executions = re.findall(r"^stat::number_of_executed_units: (\d+)", text, re.M)
    edges = re.findall(r" cov: (\d+) ", text)
    findings = [
        f"{name}: {file.read_bytes()!r}\n{_traceback(text)}" for file in sorted(found.iterdir())
    ]
    if done.returncode and not findings:
        findings = [f"{name}: exit {done.returncode}\n{text[-3000:]}"]
    return Result(int((executions or [0])[-1]), int((edges or [0])[-1]), findings)


def _by_mutation(name: str, seconds: int, _: Path) -> Result:
    known, result = [*seeds(name), *kept(name)], Result()
    dice = random.Random()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = mutated(dice.choice(known), known, dice)[:LONGEST]
        result.executions += 1
        try:
            measured(TARGETS[name], data)
        except BaseException as error:
            result.findings.append(f"{name}: {data!r}\n{type(error).__name__}: {error}")
    return result


def _keep(name: str, new: Path) -> None:
    """Copy inputs that reached new code, named by what they hold, the smallest first."""
    if not new.is_dir():
        return
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    room = KEPT_BYTES - sum(file.stat().st_size for file in folder.iterdir())
    for file in sorted(new.iterdir(), key=lambda file: file.stat().st_size):
        room -= file.stat().st_size
        if room < 0:
            return
        shutil.copyfile(file, folder / file.name[:16])


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


def _traceback(text: str) -> str:
    start = text.find("Uncaught Python exception")
    return text[start : start + 3000] if start >= 0 else text[-1500:]


if __name__ == "__main__":
    sys.exit(main())
