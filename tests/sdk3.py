"""Records what SageMaker's Python SDK 3 makes of the mixed pipeline (``make sdk3``).

It runs in an environment of its own: versions 2 and 3 cannot be installed beside each other. The
suite compares the record with what version 2 makes.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from support.mixed_pipeline import RECORDED, definition  # noqa: E402  # the path is set above


def main() -> int:
    """Write the record."""
    version = importlib.metadata.version("sagemaker")
    if not version.startswith("3."):
        print(f"this environment has SageMaker's Python SDK {version}, not 3", file=sys.stderr)
        return 2
    found = {"sdk": version, "definition": definition()}
    RECORDED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(f"recorded by SageMaker's Python SDK {version}: {RECORDED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
