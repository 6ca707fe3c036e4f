"""The solver of VNN-LIB 2: one query about one or several networks, sat, unsat, unknown or timed-out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from idl_audit.commands.shared.answers import Answer, Assignment, answered
from idl_audit.commands.shared.assertions import AskedQuery, asked_query
from idl_audit.commands.shared.networks import open_networks
from idl_audit.commands.shared.proof_files import write
from idl_audit.commands.shared.query_certificates import proof_of_answer
from idl_audit.commands.shared.told_values import in_decimals, in_doubles, told_assignment
from idl_audit.data.vnnlib2.reader import read_specification
from idl_audit.data.vnnlib2.syntax import REAL, Specification, Variable
from idl_audit.decide.ladder import Options
from idl_audit.graph.files import read_with_sha256
from idl_audit.graph.onnx_writer import tensor_bytes
from idl_audit.values.arrays import AnyArray
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, OptionError, UnsupportedModelError
from idl_audit.values.files import write_whole


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
    proof: Path | None = None
    """Where the proof of an `unsat` is written."""
    seed: int = 0


TOO_LARGE: Final = "a number of the query is beyond the largest float64, 1.8e308"
"""Of a real query, which may have numbers of any size: bounds are float64 numbers."""
NO_PROOF: Final = "no proof that stands alone was found in the time"

Tell: TypeAlias = Callable[[str, str], None]
"""Hears what is to be said on stdout and on stderr, as far as it is known."""


def said_of(asked: Asked, tell: Tell = lambda out, err: None) -> tuple[str, str]:
    """Return what is said on stdout and on stderr about a query.

    Args:
        asked: the query, and what is wanted of it.
        tell: hears the answer before its proof is made and written, which may take the rest of the time.

    Raises:
        InvalidInputError: where the query, a file, or what they say of each other is refused, or the proof has no
            place.
    """
    _check_place(asked.proof)
    query, sha256 = read_with_sha256(asked.query, read_specification)
    budget = Budget.of(asked.deadline - time.monotonic(), clock=time.monotonic)
    answer, found = decided(query, asked.files, Options(seed=asked.seed, record=asked.proof is not None), budget)
    lines: list[str] = [answer.word]
    if answer.word == "unsat" and asked.proof is not None and found is not None:
        tell("unsat\n", f"{NO_PROOF}\n")
        with suppress(BudgetError):
            proof = proof_of_answer(found, sha256, answer, budget)
            if proof is not None:
                write(asked.proof, proof, force=False)
                return "unsat\n", f"{asked.proof} has the proof, for idl-audit verify\n"
        return "unsat\n", f"{NO_PROOF}\n"
    if answer.word == "sat" and found is not None:
        assignment, remark = told_assignment(
            found, answer.assignment, in_decimals if asked.folder is None else in_doubles
        )
        answer = replace(answer, remarks=(*answer.remarks, *filter(None, [remark])))
        if asked.folder is None:
            lines += assignment_lines(query, assignment)
        else:
            write_assignment(query, assignment, asked.folder)
    return "".join(f"{line}\n" for line in lines), "".join(f"{remark}\n" for remark in answer.remarks)


def _check_place(proof: Path | None) -> None:
    """Refuse a proof's file that is there already, or that has no folder, before anything is decided."""
    if proof is not None and proof.exists():
        raise OptionError(f"--proof {proof} exists already; give another name, or remove it")
    if proof is not None and not proof.absolute().parent.is_dir():
        raise OptionError(
            f"--proof {proof}: there is no folder {proof.absolute().parent}; make it, or name another one"
        )


def verify(query: Specification, files: Mapping[str, Path], options: Options, budget: Budget) -> Answer:
    """Decide one query.

    Raises:
        InvalidInputError: where the query, a file, or what they say of each other is refused.
    """
    return decided(query, files, options, budget)[0]


def decided(
    query: Specification, files: Mapping[str, Path], options: Options, budget: Budget
) -> tuple[Answer, AskedQuery | None]:
    """Decide one query; return it in terms of its model as well, where there is one.

    Raises:
        InvalidInputError: where the query, a file, or what they say of each other is refused.
    """
    asked = None
    try:
        asked = asked_query(query, open_networks(query, files))
        return answered(asked, options, budget), asked
    except UnsupportedModelError as error:
        return Answer("unknown", remarks=(str(error),)), asked
    except OverflowError:
        return Answer("unknown", remarks=(TOO_LARGE,)), asked
    except BudgetError:
        return Answer("timed-out"), asked


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
    """Return a rational number as a decimal: exactly where it has an end, else rounded."""
    told = in_decimals(number)
    places = max(_count(told.denominator, 2), _count(told.denominator, 5), 1)
    scaled = int(abs(told) * 10**places)
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
