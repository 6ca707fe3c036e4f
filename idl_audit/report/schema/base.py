"""What every part of a report has in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Part(BaseModel):
    """A frozen piece of a report: no unknown fields, no NaN, no infinity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        populate_by_name=True,
        defer_build=True,  # validators of what a command reports are made on first use: half of the start is saved
    )


_SAME: dict[frozenset[str], set[str]] = {}
"""Fields that were given -> the one set of them that all pieces have."""


class Repeated(Part):
    """A piece of which a report has one for each sample: those whose same fields were given share the set of them.

    pydantic keeps such a set with each object, 728 bytes for five names and more; a copy of an object has its own.
    """

    def model_post_init(self, context: Any, /) -> None:
        """Take the set that others have."""
        given = self.__pydantic_fields_set__
        object.__setattr__(self, "__pydantic_fields_set__", _SAME.setdefault(frozenset(given), given))


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
Fingerprint: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Status: TypeAlias = Literal["complete", "incomplete"]
WhyIncomplete: TypeAlias = Literal["interrupted", "not_judged"]
Level: TypeAlias = Literal["info", "warning", "error"]
PropertyResult: TypeAlias = Literal["sat", "unsat", "unknown", "timeout"]
