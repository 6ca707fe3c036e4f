"""How a solve ended: a word of ours for each of HiGHS's."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

from idl_audit.values.errors import SolverError


class Outcome(enum.Enum):
    """How a solve ended; the value is what to make of it."""

    OPTIMAL = "solved"
    INFEASIBLE = "the constraints contradict each other"
    UNBOUNDED = "the objective has no bound: a bound of the relaxation is missing"
    TIME_LIMIT = "the time limit was reached; raise --time-limit"
    MEMORY_LIMIT = "the memory limit was reached; audit a smaller model"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped early: the sign of the optimum is known"
    FAILED = "the solver failed"


OUTCOMES: Final[Mapping[str, Outcome]] = {
    "kOptimal": Outcome.OPTIMAL,
    "kInfeasible": Outcome.INFEASIBLE,
    "kUnbounded": Outcome.UNBOUNDED,
    "kUnboundedOrInfeasible": Outcome.FAILED,
    "kTimeLimit": Outcome.TIME_LIMIT,
    "kIterationLimit": Outcome.TIME_LIMIT,
    "kSolutionLimit": Outcome.TIME_LIMIT,
    "kObjectiveBound": Outcome.TIME_LIMIT,
    "kObjectiveTarget": Outcome.STOPPED,
    "kMemoryLimit": Outcome.MEMORY_LIMIT,
    "kInterrupt": Outcome.INTERRUPTED,
    "kHighsInterrupt": Outcome.INTERRUPTED,
    "kNotset": Outcome.FAILED,
    "kLoadError": Outcome.FAILED,
    "kModelError": Outcome.FAILED,
    "kPresolveError": Outcome.FAILED,
    "kSolveError": Outcome.FAILED,
    "kPostsolveError": Outcome.FAILED,
    "kModelEmpty": Outcome.FAILED,
    "kUnknown": Outcome.FAILED,
}
"""Every status that HiGHS 1.15 has; a status of a later version is an error until it stands here."""


def outcome_of(status: Any) -> Outcome:
    """Return our word for a status of HiGHS. Raises SolverError for one that is not in the table."""
    if status.name not in OUTCOMES:
        raise SolverError(f"HiGHS answers with the status {status.name}, which this version of idl-audit does not know")
    return OUTCOMES[status.name]
