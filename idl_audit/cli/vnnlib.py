"""`idl-audit-vnnlib`: the command line that the standard VNN-LIB 2 asks of a solver.

    idl-audit-vnnlib --name
    idl-audit-vnnlib --version
    idl-audit-vnnlib verify QUERY --network NAME=FILE ... [--timeout SECONDS] [--serialise-assignments DIR]
                            [--proof FILE]
    idl-audit-vnnlib supports CAPABILITY

The first line of stdout is sat, unsat, unknown or timed-out; assignments follow sat. Errors stand on stderr alone, with
exit code 2. What decides runs in a process of its own, so that the time limit holds whatever a library does. Beside the
standard's options stands --proof: of an unsat, what `idl-audit verify` checks again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NoReturn, TextIO

from idl_audit import __version__

NAME: Final = "idl-audit"
USAGE: Final = 2
"""The exit code of errors."""
INCOMPLETE: Final = 3

DEFAULT_TIMEOUT: Final = 3600.0
"""Seconds, where no limit is given."""
TO_ANSWER: Final = 0.3
"""Seconds before the end at which the answer is begun: to print it, and to look for it in vain no longer."""
TO_END: Final = 0.15
"""Seconds before the end at which whoever has not answered is not waited for any longer."""
LONGEST: Final = 10.0**8
"""Seconds, some three years: a limit beyond is this one, as no system waits for longer times than it can count."""
LEAST: Final = 0.05
"""Seconds that there are in any case."""


@dataclass(frozen=True)
class Said:
    """What a run prints, and how it ends."""

    out: str
    err: str = ""
    code: int = 0


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    said = run(given, _age())
    sys.stderr.write(said.err)
    sys.stdout.write(said.out)
    sys.stdout.flush()
    sys.exit(said.code)


def run(arguments: Sequence[str], age: float = 0.0, *, apart: bool = True) -> Said:
    """Return what the command line prints.

    Args:
        arguments: those of the command line.
        age: seconds that the process has run already.
        apart: whether what decides runs in a process of its own.
    """
    start = time.monotonic() - age
    try:
        parser = _parser()
        options = parser.parse_args(arguments)
        if options.command is None and not (options.name or options.version):
            parser.error("give verify or supports, or --name, or --version")
    except _Usage as wrong:
        return wrong.said
    if options.command == "supports":
        from idl_audit.commands.capabilities import CAPABILITIES

        return Said("".join(f"{line}\n" for line in CAPABILITIES[options.capability]()))
    if options.command == "verify":
        deadline = start + (DEFAULT_TIMEOUT if options.timeout is None else options.timeout)
        return _in_time(options, deadline) if apart and hasattr(os, "fork") else _verified(options, deadline)
    return Said(f"{NAME if options.name else __version__}\n")


# --- options ----------------------------------------------------------------------------------------------------------


class _Usage(Exception):
    """Wrong usage, or a request for help."""

    def __init__(self, said: Said) -> None:
        super().__init__()
        self.said = said


class _Parser(argparse.ArgumentParser):
    """A parser that returns what it has to say."""

    def error(self, message: str) -> NoReturn:
        raise _Usage(Said("", f"error: {message}\n{self.format_usage()}", USAGE))

    def print_help(self, file: object = None) -> None:
        raise _Usage(Said(self.format_help()))


def _parser() -> _Parser:
    parser = _Parser("idl-audit-vnnlib", description="Decide VNN-LIB 2 queries about neural networks.")
    about = parser.add_mutually_exclusive_group()
    about.add_argument("--name", action="store_true", help="print the solver's name")
    about.add_argument("--version", action="store_true", help="print its version")
    commands = parser.add_subparsers(dest="command", parser_class=_Parser)
    verify = commands.add_parser("verify", help="decide a query: sat, unsat, unknown or timed-out")
    verify.add_argument("query", type=Path, metavar="QUERY", help="the .vnnlib file")
    verify.add_argument("--network", action="append", default=[], metavar="NAME=FILE", help="a network and its model")
    verify.add_argument("--timeout", type=_seconds, default=None, metavar="SECONDS", help="for everything (an hour)")
    verify.add_argument("--serialise-assignments", type=Path, metavar="DIR", help="write assignments as DIR/NAME.pb")
    verify.add_argument(
        "--proof",
        type=Path,
        metavar="FILE.npz",
        help="write what proves unsat, for idl-audit verify",
    )
    verify.add_argument("--seed", type=int, default=0, metavar="N", help="of the search for points")
    supports = commands.add_parser("supports", help="say what can be decided")
    capabilities = supports.add_mutually_exclusive_group(required=True)
    for name in _CAPABILITIES:
        capabilities.add_argument(name, dest="capability", action="store_const", const=name)
    capabilities.add_argument(_MISSPELT, dest="capability", action="store_const", const=_CAPABILITIES[5])
    return parser


_CAPABILITIES: Final = (
    "--onnx-opset-versions",
    "--onnx-element-types",
    "--onnx-operators",
    "--vnnlib-versions",
    "--hidden-node-theories",
    "--multiple-input-output-theories",
    "--multiple-network-theories",
    "--multiple-node-comparison-theories",
    "--arithmetic-complexity-theories",
    "--optimised-disjunctive-reasoning",
    "--serialise-assignments",
)
_MISSPELT: Final = "--multiple-inputs-output-theories"
"""As an example of the standard writes it."""


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is no time: give seconds above 0")
    return min(value, LONGEST)


# --- verify -----------------------------------------------------------------------------------------------------------


def _age() -> float:
    """Return how many seconds this process has run; 0 where the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, age)


def _in_time(options: argparse.Namespace, deadline: float) -> Said:
    """Return what a process of its own says; where it says nothing in time, that the time is over."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        os.dup2(2, 1)  # whatever a library prints is no answer
        with os.fdopen(writer, "w", encoding="utf-8") as pipe:
            tell = _teller(pipe)
            tell(_verified(options, deadline, tell))
        os._exit(0)
    os.close(writer)
    try:
        text, is_closed = _read(reader, deadline - TO_END)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    *lines, _ = text.split("\n")  # behind the last end of a line stands what was cut off
    if lines:
        return Said(**json.loads(lines[-1]))
    if not is_closed:
        return Said("timed-out\n")
    return Said("unknown\n", "the process that decides died; it may have run out of memory\n")


def _teller(pipe: TextIO) -> Callable[[Said], None]:
    """Return what sends word through a pipe, a line each; the last one counts."""

    def tell(said: Said) -> None:
        pipe.write(json.dumps(asdict(said)) + "\n")
        pipe.flush()

    return tell


def _read(reader: int, deadline: float) -> tuple[str, bool]:
    """Return all that comes through a pipe until it is closed, or until the deadline; whether it was closed."""
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([reader], [], [], max(LEAST, deadline - time.monotonic()))
        part = os.read(reader, 2**16) if ready else b""
        if not part:
            return b"".join(parts).decode("utf-8", "replace"), bool(ready)
        parts.append(part)


def _verified(options: argparse.Namespace, deadline: float, tell: Callable[[Said], None] = lambda said: None) -> Said:
    """Decide the query and return what is to be said; it is written to no stream.

    `tell` hears an answer that is known while its proof is still made.
    """
    from idl_audit.commands.vnnlib import Asked, said_of
    from idl_audit.values.errors import IdlAuditError, IncompleteError

    try:
        files = dict(map(_named, options.network))
        if len(files) < len(options.network):
            return Said("", "error: --network names a network twice; give each its model once\n", USAGE)
        asked = Asked(
            options.query, files, deadline - TO_ANSWER, options.serialise_assignments, options.proof, options.seed
        )
        return Said(*said_of(asked, lambda out, err: tell(Said(out, err))))
    except IncompleteError as error:
        return Said("", f"error: {error}\n", INCOMPLETE)
    except (IdlAuditError, argparse.ArgumentTypeError) as error:
        return Said("", f"error: {error}\n", USAGE)
    except MemoryError:
        return Said("unknown\n", "it ran out of memory\n")
    except Exception:
        return Said("", f"error: an internal error; please report it\n{traceback.format_exc()}", INCOMPLETE)


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"--network {text!r} is no NAME=FILE; give a network and its model")
    return name, Path(path)


if __name__ == "__main__":
    main()
