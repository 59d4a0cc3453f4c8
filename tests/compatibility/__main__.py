"""``python -m compatibility write``: writes docs/compatibility.md."""

from __future__ import annotations

import argparse

from compatibility import report


def main() -> int:
    parser = argparse.ArgumentParser(prog="compatibility")
    parser.add_argument("command", choices=["write"])
    parser.parse_args()
    report.write()
    return 0


raise SystemExit(main())
