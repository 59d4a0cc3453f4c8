"""Calls a stand-in: ``python stand_in_runner.py FILE FUNCTION GIVEN ANSWER``.

Run by its path with the user's Python, which need not have this package: only the standard library.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path


def main(file: str, function: str, given: str, answer: str) -> int:
    """Call the function with the JSON in ``given``; what it returns goes to ``answer``."""
    sys.path.insert(0, str(Path(file).parent))
    found = runpy.run_path(file, run_name="stand_in").get(function)
    if not callable(found):
        sys.stderr.write(f"{file} has no function {function}.\n")
        return 2
    properties = found(json.loads(Path(given).read_text()))
    if not isinstance(properties, dict | None):
        sys.stderr.write(f"{function} returned {type(properties).__name__}: not a dictionary.\n")
        return 2
    Path(answer).write_text(json.dumps(properties or {}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
