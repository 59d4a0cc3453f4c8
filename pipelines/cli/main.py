"""``mledgeops``: parses the command line, runs a command, and turns failures into one sentence and
an exit code.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from edge.training.app_bundle import AppError
from pipelines.cli.commands.measure import bench, chaos
from pipelines.cli.commands.operate import cloud, component, deploy, devices, enrolment
from pipelines.cli.commands.registry import models, reconcile, rollout
from pipelines.cli.commands.runs import dashboard, history, run, schedules, trace
from pipelines.cli.output import readable, show_json
from pipelines.errors import DeployError, UsageError
from pipelines.local.home import LocalCloudError
from registry.errors import RegistryError

USAGE = 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage text."""

    def error(self, message: str) -> NoReturn:
        """Exit 2."""
        raise UsageError(f"{message[:1].upper()}{message[1:]}. See `{self.prog} --help`.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 0 on success, 1 on a failed job, 2 on bad usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        options = _parser().parse_args(given)
        code: int = options.function(options)
    except (UsageError, AppError, LocalCloudError, RegistryError, DeployError) as error:
        return _refuse(str(error), "--json" in given)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return run.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough (`mledgeops runs | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename:
            return _refuse(f"{error.filename}: {error.strerror}.", "--json" in given)
        return _crashed(error, "--json" in given)
    except Exception as error:  # noqa: BLE001  # the last line of defence: one sentence for the user, the rest for us
        return _crashed(error, "--json" in given)
    return code


def _crashed(error: Exception, as_json: bool) -> int:
    _refuse(
        f"{type(error).__name__}: {error}. This is a fault of ours; MLEDGEOPS_DEBUG=1 shows where.",
        as_json,
    )
    if os.environ.get("MLEDGEOPS_DEBUG"):
        raise error
    return 1


def _refuse(reason: str, as_json: bool) -> int:
    if as_json:
        show_json({"status": "Failed", "reason": reason})
    sys.stderr.write(f"mledgeops: {readable(reason)}\n")
    return USAGE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mledgeops",
        description="Federated learning on AWS IoT fleets, as SageMaker pipelines.",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    for module in (
        run,
        history,
        models,
        rollout,
        reconcile,
        devices,
        trace,
        enrolment,
        schedules,
        dashboard,
        deploy,
        component,
        cloud,
        bench,
        chaos,
    ):
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
