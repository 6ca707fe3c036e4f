"""What `certify --everywhere` found: statements over the whole range of the inputs, and what is open of them."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from idl_audit.report.schema.base import Count, Part, Seconds, Sha256, Text
from idl_audit.values.verdicts import Reason, Verdict

Share01 = Annotated[float, Field(ge=0, le=1)]

SUMS = 1e-9
"""How far three shares may be from 1 together."""


class InputRange(Part):
    """The values of an input, or of a feature."""

    name: Text = Field(description="The feature's name, or the input's, or its number.")
    lo: float | None = Field(default=None, description="Least value; null where `values` lists them.")
    hi: float | None = Field(default=None, description="Greatest value.")
    values: tuple[Text, ...] = Field(
        default=(), description="Of a category or a whole number: the values, all or the first and the last."
    )
    n_values: Count | None = Field(default=None, description="How many values there are.")

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if (self.lo is None) != (self.hi is None) or (self.lo is None) != bool(self.values):
            raise ValueError(f"{self.name} has an interval or values, one of the two")
        if self.lo is not None and self.hi is not None and self.lo > self.hi:
            raise ValueError(f"the interval of {self.name} is empty")
        return self


class OpenPart(Part):
    """A part of the range of which nothing is proved."""

    share: Share01 = Field(description="Share of the volume.")
    limits: tuple[InputRange, ...] = Field(
        default=(), description="Inputs that have less than their whole range in it."
    )


class PartsMap(Part):
    """Where a statement is open and where it fails, over two inputs: shares of the volume above each cell."""

    x: Text = Field(description="The input along the columns.")
    y: Text = Field(description="The input along the rows, from the bottom.")
    x_place: Count | None = Field(default=None, description="The number of the first input.")
    y_place: Count | None = Field(default=None, description="The number of the second.")
    x_ends: tuple[float, float] = Field(description="The range of the first.")
    y_ends: tuple[float, float] = Field(description="The range of the second.")
    open: tuple[tuple[Share01, ...], ...] = Field(description="Share of each cell that is open, row by row.")
    failing: tuple[tuple[Share01, ...], ...] = Field(description="Share of each cell where it fails everywhere.")

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        widths = {len(row) for rows in (self.open, self.failing) for row in rows}
        if len(widths) != 1 or 0 in widths or len(self.open) != len(self.failing) or not self.open:
            raise ValueError("a map has two tables of one shape")
        return self


class Witness(Part):
    """Where a statement does not hold: one input or, of a score that goes the wrong way, two."""

    point: tuple[float, ...] = Field(description="The input, float32 numbers.")
    second: tuple[float, ...] = Field(default=(), description="The other one, larger in the one input.")
    told: tuple[tuple[Text, Text], ...] = Field(default=(), description="Features and their values at the first.")
    outputs: tuple[float | None, ...] = Field(
        default=(), description="What the original network gives; of a score, its two values. null: no finite number."
    )
    confirmed_by: tuple[Text, ...] = Field(default=(), description="What was asked about it.")


class WholeStatement(Part):
    """One statement over its range."""

    text: Text = Field(description="The statement, in words.")
    kind: Literal["above", "below", "never", "monotone"] = Field(description="What is to hold.")
    range_sha256: Sha256 = Field(description="SHA-256 of the range: ends, and values of whole numbers and categories.")
    verdict: Verdict = Field(description="certified, falsified or unknown.")
    reason: Reason | None = Field(default=None, description="For `unknown`: why.")
    method: Text | None = Field(default=None, description="What decided it: parts, or a method of the ladder.")
    holding: Share01 = Field(description="Share of the volume in which it is proved.")
    failing: Share01 = Field(description="Share in which it is proved to fail at every point.")
    open: Share01 = Field(description="The rest.")
    n_parts: Count = Field(description="Parts of the range that were bounded.")
    n_open: Count = Field(description="Parts that are open.")
    open_parts: tuple[OpenPart, ...] = Field(default=(), description="The largest of them.")
    map: PartsMap | None = Field(default=None, description="Where they are, over two inputs.")
    witness: Witness | None = Field(default=None, description="For `falsified`: where it does not hold.")
    certificate: Text | None = Field(default=None, description="The file that holds its proof; null without one.")
    seconds: Seconds | None = Field(default=None, description="Time spent on it.")

    @model_validator(mode="after")
    def _check_verdict(self) -> Self:
        if self.verdict is Verdict.CLEAN_WRONG:
            raise ValueError("a statement over a whole range has no right class")
        if (self.witness is not None) != (self.verdict is Verdict.FALSIFIED):
            raise ValueError(f"a falsified statement, and no other, has a witness; this one is {self.verdict}")
        if (self.reason is not None) != (self.verdict is Verdict.UNKNOWN):
            raise ValueError(f"an unknown statement, and no other, has a reason; this one is {self.verdict}")
        if not math.isclose(self.holding + self.failing + self.open, 1.0, abs_tol=SUMS):
            raise ValueError("the shares of a statement do not sum to 1")
        if self.verdict is Verdict.CERTIFIED and (self.n_open or self.open or self.failing):
            raise ValueError("a certified statement has no open part")
        if len(self.open_parts) > self.n_open:
            raise ValueError("a statement lists more open parts than it counts")
        return self


class Everywhere(Part):
    """Statements over the whole range of the inputs."""

    bounds: tuple[float, float] | None = Field(default=None, description="The range of every input (--bounds).")
    features: Text | None = Field(default=None, description="The file that says what the inputs are (--features).")
    features_sha256: Sha256 | None = Field(default=None, description="SHA-256 of that file.")
    ranges: tuple[InputRange, ...] = Field(default=(), description="The range of each feature; none without a file.")
    arithmetic: Literal["real"] = Field(default="real", description="What `certified` speaks of: real arithmetic.")
    statements: tuple[WholeStatement, ...] = Field(description="One entry a statement, in the order of asking.")
