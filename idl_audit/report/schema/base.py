"""What every part of a report has in common, and the words that verdicts are told in."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Part(BaseModel):
    """A frozen piece of a report: no unknown fields, no NaN, no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


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


def _without_surrogates(value: object) -> object:
    """Replace what stands for undecodable bytes in a file's name: JSON has no place for it."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


Text: TypeAlias = Annotated[str, BeforeValidator(_without_surrogates)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
Seconds: TypeAlias = Annotated[float, Field(ge=0)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Status: TypeAlias = Literal["complete", "incomplete"]
WhyIncomplete: TypeAlias = Literal["interrupted", "not_judged"]
Level: TypeAlias = Literal["info", "warning", "error"]
PropertyResult: TypeAlias = Literal["sat", "unsat", "unknown", "timeout"]
