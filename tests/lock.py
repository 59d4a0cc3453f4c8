"""Writes the hashes of all files of each pin into the locks (``make lock``).

pip then installs nothing but these files (``--require-hashes``). A lock holds the hashes of every
file that the package index lists for a pin, so that it serves all platforms. A hash that a lock has
already stays as long as its pin does: PyTorch's CPU build has the pin's version and is not on the
index. ``python tests/lock.py FILE ...`` adds such wheels' hashes.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.utils import parse_wheel_filename

from pipelines.aws.hashes import Pins, canonical, read_lock, requirement

ROOT = Path(__file__).parent.parent
LOCKS = (
    "requirements.lock",
    "requirements-test.lock",
    "requirements-tools.lock",
    "requirements-deploy.lock",
    "requirements-compatibility.lock",
    "requirements-sdk3.lock",
)


def written(text: str, hashes: Pins) -> str:
    """A lock's comments and pins, each with these hashes."""
    comments = [line for line in text.splitlines() if line.startswith("#")]
    return "\n".join([*comments, *(requirement(pin, hashes[pin]) for pin in hashes)]) + "\n"


def joined(pins: Pins, index: Pins, wheels: Sequence[Path]) -> Pins:
    """The hashes of a lock, those of the index, and those of wheels that fit a pin."""
    listed = {canonical(pin): found for pin, found in index.items()}
    result = {pin: found | listed.get(canonical(pin), set()) for pin, found in pins.items()}
    for wheel in wheels:
        name, version, _, _ = parse_wheel_filename(wheel.name)
        digest = f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
        for pin in result:
            if canonical(pin) == f"{name}=={version.public}":
                result[pin].add(digest)
    return result


def indexed(pins: Iterable[str]) -> Pins:
    """The hashes of all files that the package index lists for each pin."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "pins.txt", Path(folder) / "hashes.txt"
        source.write_text("\n".join(pins) + "\n")
        uv = str(Path(sys.executable).with_name("uv"))
        options = ["--quiet", "--no-config", "--no-deps", "--no-header", "--no-annotate"]
        files = [str(source), "--output-file", str(target)]
        compiling = [uv, "pip", "compile", "--generate-hashes", *options, *files]
        subprocess.run(compiling, check=True)
        return read_lock(target.read_text())


def main(wheels: Sequence[str]) -> int:
    for lock in LOCKS:
        text = (ROOT / lock).read_text()
        pins = read_lock(text)
        hashes = joined(pins, indexed(pins), [Path(wheel) for wheel in wheels])
        (ROOT / lock).write_text(written(text, hashes))
        print(f"{lock}: {len(pins)} pins, {sum(map(len, hashes.values()))} hashes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
