"""The solver of VNN-LIB 2: one query about one or several networks, sat, unsat, unknown or timed-out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from idl_audit.commands.shared.answers import Answer, Assignment, answered
from idl_audit.commands.shared.assertions import asked_query
from idl_audit.commands.shared.networks import open_networks
from idl_audit.data.vnnlib2.reader import read_specification
from idl_audit.data.vnnlib2.syntax import REAL, Specification, Variable
from idl_audit.decide.ladder import Options
from idl_audit.graph.onnx_writer import tensor_bytes
from idl_audit.values.arrays import AnyArray
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, OptionError, UnsupportedModelError
from idl_audit.values.files import write_whole

DIGITS: Final = 40
"""Of a real number that has no end, behind the point."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks."""

    query: Path
    files: Mapping[str, Path]
    """Network -> its model."""
    deadline: float
    """On the monotonic clock."""
    folder: Path | None = None
    """Where assignments are written, in place of being printed."""
    seed: int = 0


def said_of(asked: Asked) -> tuple[str, str]:
    """Return what is said on stdout and on stderr about a query.

    Raises:
        InvalidInputError: where the query, a file, or what they say of each other is refused.
    """
    query = read_specification(asked.query)
    budget = Budget.of(asked.deadline - time.monotonic(), clock=time.monotonic)
    answer = verify(query, asked.files, Options(seed=asked.seed), budget)
    lines: list[str] = [answer.word]
    if answer.word == "sat":
        if asked.folder is None:
            lines += assignment_lines(query, answer.assignment)
        else:
            write_assignment(query, answer.assignment, asked.folder)
    return "".join(f"{line}\n" for line in lines), "".join(f"{remark}\n" for remark in answer.remarks)


def verify(query: Specification, files: Mapping[str, Path], options: Options, budget: Budget) -> Answer:
    """Decide one query.

    Raises:
        InvalidInputError: where the query, a file, or what they say of each other is refused.
    """
    try:
        return answered(asked_query(query, open_networks(query, files)), options, budget)
    except UnsupportedModelError as error:
        return Answer("unknown", remarks=(str(error),))
    except OverflowError:  # a real query may have numbers of any size, and bounds are float64 numbers
        return Answer("unknown", remarks=("a number of the query is beyond the largest float64, 1.8e308",))
    except BudgetError:
        return Answer("timed-out")


# --- assignments ------------------------------------------------------------------------------------------------------


def assignment_lines(query: Specification, assignment: Assignment) -> Iterator[str]:
    """Yield an assignment as the standard prints it: a line for each variable, then its entries in row-major order."""
    for variable in query.variables:
        yield f"{variable.name} {variable.element} [{','.join(map(str, variable.shape))}]"
        yield from map(number_text, assignment[variable.name].reshape(-1))


def number_text(number: Any) -> str:
    """Return a number without an exponent, as queries write theirs; a float by the fewest digits that tell it."""
    if isinstance(number, Fraction):
        return _decimal(number)
    if isinstance(number, np.bool_ | bool | np.integer):
        return str(int(number))
    return np.format_float_positional(number, unique=True, trim="0")


def _decimal(number: Fraction) -> str:
    """Return a rational number as a decimal: exactly where it has an end within float64's range, else rounded."""
    rest = number.denominator
    twos, fives = (_count(rest, 2), _count(rest, 5))
    exact = rest == 2**twos * 5**fives
    places = max(twos, fives, 1) if exact else DIGITS
    scaled = round(abs(number) * 10**places)
    whole, behind = divmod(scaled, 10**places)
    return f"{'-' if number < 0 else ''}{whole}.{behind:0{places}d}"


def _count(number: int, factor: int) -> int:
    count = 0
    while number % factor == 0:
        number //= factor
        count += 1
    return count


def write_assignment(query: Specification, assignment: Assignment, folder: Path) -> None:
    """Write DIR/NAME.pb for each variable: a serialised TensorProto.

    Raises:
        OptionError: where that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for variable in query.variables:
            array = _stored(variable, assignment[variable.name])
            _write(folder / f"{variable.name}.pb", tensor_bytes(array, variable.name))
    except OSError as error:
        why = f"{error.strerror}; name a folder that can be written"
        raise OptionError(f"--serialise-assignments {folder}: {why}") from error


def _write(path: Path, contents: bytes) -> None:
    """Write a file whole or not at all: whoever writes is ended when the time is over."""
    write_whole(path, lambda stream: stream.write(contents))


def _stored(variable: Variable, array: AnyArray) -> AnyArray:
    kind = np.float64 if variable.element == REAL else np.dtype(variable.element)
    return array.astype(kind).reshape(variable.shape)
