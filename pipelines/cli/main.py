"""``mledgeops``: parses the command line, runs a command, reports a failure in one sentence."""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from edge.errors import MLEdgeOpsError
from pipelines.cli import INTERRUPTED
from pipelines.cli.catalogue import COMMANDS, PACKAGE, as_text
from pipelines.cli.output import readable, show_json
from pipelines.errors import UsageError, aws_refusal

PROGRAM = "mledgeops"


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
        options = _parser(given).parse_args(given)
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
        if (refusal := aws_refusal(error)) is not None:
            return _refuse(str(refusal), refusal.code, refusal.exit_code, as_json=as_json)
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


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command that ``given`` names: the others are not imported."""
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [-h] [--version] COMMAND ...",
        description="Federated learning on AWS IoT fleets, as SageMaker pipelines.",
        epilog=f"{as_text()}\n\n`{PROGRAM} COMMAND --help` tells a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="COMMAND",
        prog=PROGRAM,
        parser_class=_Parser,
        help=argparse.SUPPRESS,
    )
    name = next((word for word in given if not word.startswith("-")), "")
    if name in COMMANDS:
        importlib.import_module(f"{PACKAGE}.{COMMANDS[name].module}").add_parser(commands)
        for declared, command in commands.choices.items():
            command.description = COMMANDS[declared].help
    elif name:
        raise UsageError(f"There is no command {name!r}{_meant(name)} See `{PROGRAM} --help`.")
    return parser


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    return f": did you mean `{close[0]}`?" if close else "."


class _Version(argparse.Action):
    """``--version``: what is installed is looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print it and exit."""
        from importlib import metadata

        print(f"{PROGRAM} {metadata.version('mledgeops')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
