"""The console script: leaves at once on Ctrl-C while the command line's modules are imported.

Importing takes half a second, and an interrupt in the midst of it would end in a traceback. Nothing
has been started by then, and nothing is left to do once the command has returned.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from pipelines.cli import INTERRUPTED


def main() -> int:
    """Run :func:`pipelines.cli.main.main`; exit 130 after Ctrl-C, whenever it comes."""
    signal.signal(signal.SIGINT, _leave)
    from pipelines.cli.main import main as run

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return run()
    except KeyboardInterrupt:
        _leave()
    finally:
        signal.signal(signal.SIGINT, _leave)
    return INTERRUPTED


def _leave(*_: Any) -> None:
    """End this process without a word of Python's."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"stopped\n")
    os._exit(INTERRUPTED)
