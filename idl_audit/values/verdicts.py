"""The words of a verdict: what is known of a query, and why nothing is.

Elsewhere: safe, verified, holds, robust, UNSAT, unsafe, violated, SAT, unknown, timeout, misclassified to begin with.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

ArithmeticName: TypeAlias = Literal["real", "float64", "float32", "float16", "bfloat16"]
"""What a verdict is proved for: real numbers, or what runtimes compute in the floats that the network computes in."""


NormName: TypeAlias = Literal["linf", "l2", "l1"]
"""What a radius bounds: the change of each input, the root of the sum of their squares, or the sum of their sizes."""


class Verdict(StrEnum):
    """What is known about one sample within one input set."""

    CERTIFIED = "certified"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"
    CLEAN_WRONG = "clean_wrong"


class Reason(StrEnum):
    """Why a verdict is unknown."""

    TIME_LIMIT = "time_limit"
    NODE_LIMIT = "node_limit"
    MEMORY_LIMIT = "memory_limit"
    SOLVER_FAILED = "solver_failed"
    WORKER_FAILED = "worker_failed"
    NO_UNIQUENESS_PROOF = "no_uniqueness_proof"
    RELAXATION_GAP = "relaxation_gap"
    ATTACKS_FAILED = "attacks_failed"
    SOLVER_ONLY = "solver_only"
    OUTSIDE_DOMAIN = "outside_domain"
    NO_ROUNDING_BOUND = "no_rounding_bound"
    """Asked of floating-point arithmetic: nothing bounds what it changes in this network, or over this set."""
    WITHIN_ROUNDING = "within_rounding"
    """Asked of floating-point arithmetic: what it may change, as far as is proved, is not below the margin."""
    NO_IMPLICIT_FORM = "no_implicit_form"
    """The network has parts that are not read: attacks were tried, and nothing can be proved."""
