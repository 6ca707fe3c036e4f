"""What `certify --monotone` found: whether a score never falls, or never rises, while one input rises."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from idl_audit.report.schema.base import Count, NonNegative, Part, Seconds, Text
from idl_audit.values.verdicts import Reason, Verdict


class WrongWay(Part):
    """Two inputs of the set that differ in the one input alone, between which the score goes the wrong way."""

    low: float = Field(description="The input at the first.")
    high: float = Field(description="The input at the second, where it is larger.")
    score_low: float = Field(description="The original network's score at the first.")
    score_high: float = Field(description="The same at the second.")
    linf: NonNegative = Field(description="Largest change of another input of the sample at both.")
    confirmed_by: tuple[Text, ...] = Field(default=(), description="What ran the network on them.")


class MonotoneResult(Part):
    """The verdict on one sample at one radius."""

    eps: NonNegative = Field(description="How far the other inputs move, one of threat_model.eps.")
    verdict: Verdict = Field(description="certified, falsified or unknown.")
    reason: Reason | None = Field(default=None, description="For `unknown`: why.")
    found: WrongWay | None = Field(default=None, description="For `falsified`: where.")
    slope: NonNegative | None = Field(
        default=None, description="For `certified`: the score goes the right way by so much for each unit at least."
    )
    parts: Count = Field(default=0, description="Parts of the set that were bounded.")
    seconds: Seconds | None = Field(default=None, description="Time spent on it.")

    @model_validator(mode="after")
    def _check_verdict(self) -> Self:
        if self.verdict is Verdict.CLEAN_WRONG:
            raise ValueError("monotonicity has no right class")
        if (self.found is not None) != (self.verdict is Verdict.FALSIFIED):
            raise ValueError(f"a falsified result, and no other, has two inputs; this one is {self.verdict}")
        if (self.reason is not None) != (self.verdict is Verdict.UNKNOWN):
            raise ValueError(f"an unknown result, and no other, has a reason; this one is {self.verdict}")
        if (self.slope is not None) != (self.verdict is Verdict.CERTIFIED):
            raise ValueError(f"a certified result, and no other, has a slope; this one is {self.verdict}")
        return self


class MonotoneSample(Part):
    """One sample with its verdicts."""

    index: Count = Field(description="Position in the data file.")
    results: tuple[MonotoneResult, ...] = Field(default=(), description="One entry per radius.")


class MonotoneCounts(Part):
    """How many samples have which verdict at one radius; the three counts sum to n."""

    eps: NonNegative = Field(description="How far the other inputs move, one of threat_model.eps.")
    n: Count = Field(description="Samples that were looked at.")
    certified: Count = Field(description="Proved: the score never goes the wrong way.")
    falsified: Count = Field(description="It does, and the network shows it.")
    unknown: Count = Field(description="Neither.")

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        total = self.certified + self.falsified + self.unknown
        if total != self.n:
            raise ValueError(f"the three counts at eps {self.eps:g} sum to {total}, not to n = {self.n}")
        return self


class Monotonicity(Part):
    """A score and an input, which moves through its whole range while the others move by eps."""

    input: Count = Field(description="The number of the input.")
    name: Text = Field(description="The input as it was asked for.")
    direction: Literal["+", "-"] = Field(
        description="While the input rises, the score is never to fall (+) or rise (-)."
    )
    score: Text = Field(description="What the score is, in words.")
    label: Count | None = Field(default=None, description="The class whose score it is; null for one output.")
    per_eps: tuple[MonotoneCounts, ...] = Field(default=(), description="One entry per radius.")
    samples: tuple[MonotoneSample, ...] = Field(default=(), description="Every sample.")
