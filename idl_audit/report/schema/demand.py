"""What was demanded of the outputs beside one class, and what is known of its parts."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from idl_audit.report.schema.base import Count, Part, Positive, Sha256
from idl_audit.values.verdicts import Verdict


class DemandInfo(Part):
    """What verdicts of this report are about, where it is not the class of the largest output."""

    kind: Literal["top", "limits", "labels", "pixels"] = Field(
        description="The label stays among the first `top` classes; outputs keep limits; each of several labels stays "
        "on its side of `threshold`; each pixel keeps its class."
    )
    top: int | None = Field(default=None, ge=1, description="For `top`: among how many.")
    within: Positive | None = Field(
        default=None, description="For `limits`: outputs stay so near to what the original network gives at the sample."
    )
    above: float | None = Field(default=None, description="For `limits`: outputs stay above this.")
    below: float | None = Field(default=None, description="For `limits`: outputs stay below this.")
    outputs: tuple[Count, ...] | None = Field(
        default=None, description="For `limits`: which outputs, by number; null for all."
    )
    threshold: float | None = Field(
        default=None, description="For `labels`: a label is given where its output is above."
    )
    labels_sha256: Sha256 | None = Field(
        default=None, description="SHA-256 of the labels, where each sample has several, by ascending position."
    )


class PartCounts(Part):
    """How many outputs, labels or pixels have which verdict; the four counts sum to n."""

    n: Count = Field(description="Outputs, labels or pixels that were asked about.")
    clean_wrong: Count = Field(description="Not as demanded at the sample itself.")
    certified: Count = Field(description="Proved: as demanded at every input of the set.")
    falsified: Count = Field(description="Not as demanded at an input of the set, by the original network.")
    unknown: Count = Field(description="None of these.")

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        total = self.clean_wrong + self.certified + self.falsified + self.unknown
        if total != self.n:
            raise ValueError(f"four counts of parts sum to {total}, not to n = {self.n}")
        return self


class OutputResult(Part):
    """What is known of one output or label."""

    output: Count = Field(description="Its number.")
    verdict: Verdict = Field(description="Whether it keeps what is demanded.")
    least: float | None = Field(
        default=None, description="No input of the set has it below: proved; null where unknown."
    )
    greatest: float | None = Field(default=None, description="No input of the set has it above, likewise.")
