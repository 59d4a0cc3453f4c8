"""One target under atheris: ``python -m fuzz.harness TARGET CORPUS... -max_total_time=60``.

Everything after the target's name goes to libFuzzer
(https://llvm.org/docs/LibFuzzer.html#options).
"""

from __future__ import annotations

import sys

import atheris

INSTRUMENTED = ["edge", "fl_runtime", "registry", "pipelines", "msgspec", "json"]


def main() -> None:
    """Fuzz until libFuzzer has had enough, or a property breaks: then the process aborts."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=INSTRUMENTED):
        from fuzz.targets import SECONDS, SECONDS_PER_BYTE, TARGETS
    import time

    target = TARGETS[name]

    def one(data: bytes) -> None:
        began = time.thread_time()
        target(data)
        took = time.thread_time() - began
        assert took < SECONDS + SECONDS_PER_BYTE * len(data), f"{took:.2f} s"

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
