"""``mledgeops``: parses the command line, runs a command, reports a failure in one sentence."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

from edge.errors import MLEdgeOpsError
from pipelines.cli import INTERRUPTED
from pipelines.cli.commands.measure import bench, chaos
from pipelines.cli.commands.operate import (
    cloud,
    component,
    dashboard,
    deploy,
    destroy,
    devices,
    enrolment,
)
from pipelines.cli.commands.registry import (
    audit,
    decisions,
    models,
    policy,
    reconcile,
    rollout,
    trace,
)
from pipelines.cli.commands.runs import check, history, logs, run, schedules
from pipelines.cli.output import readable, show_json
from pipelines.errors import UsageError

MODULES = (
    run,
    check,
    history,
    logs,
    models,
    decisions,
    rollout,
    policy,
    audit,
    reconcile,
    trace,
    devices,
    enrolment,
    schedules,
    dashboard,
    deploy,
    destroy,
    component,
    cloud,
    bench,
    chaos,
)
"""In the order of ``mledgeops --help``."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one sentence, without the usage text."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}. See `{self.prog} --help`.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 0 on success, 1 when the job failed, 2 for bad usage, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        options = _parser().parse_args(given)
        code: int = options.function(options)
    except MLEdgeOpsError as error:
        return _refuse(str(error), error.code, error.exit_code, as_json=as_json)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has closed the pipe (`mledgeops runs | head`). Python would complain once
        # more when it flushes stdout at exit: https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if not error.filename:
            return _crashed(error, as_json=as_json)
        reason = f"{error.filename}: {error.strerror}."
        return _refuse(reason, "file", MLEdgeOpsError.exit_code, as_json=as_json)
    except Exception as error:  # noqa: BLE001  # the last line of defence: one sentence for the user
        return _crashed(error, as_json=as_json)
    return code


def _crashed(error: Exception, *, as_json: bool) -> int:
    kind = type(error).__name__
    reason = f"{kind}: {error}. This is a bug in MLEdgeOps; MLEDGEOPS_DEBUG=1 shows where."
    code = _refuse(reason, "internal", 1, as_json=as_json)
    if os.environ.get("MLEDGEOPS_DEBUG"):
        raise error
    return code


def _refuse(reason: str, code: str, exit_code: int, *, as_json: bool) -> int:
    if as_json:
        show_json({"status": "Failed", "code": code, "reason": reason})
    sys.stderr.write(f"mledgeops: {readable(reason)}\n")
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mledgeops",
        description="Federated learning on AWS IoT fleets, as SageMaker pipelines.",
    )
    version = f"%(prog)s {metadata.version('mledgeops')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    for module in MODULES:
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
