"""What `compare` found: whether two networks give one class around each sample, and how far apart outputs are."""

from __future__ import annotations

from typing import Literal, Self, TypeAlias

from pydantic import Field, model_validator

from idl_audit.report.schema.base import Count, NonNegative, Part, Positive, Seconds, Text
from idl_audit.report.schema.subject import AgreementCheck, ModelInfo
from idl_audit.values.verdicts import Reason

Agreement: TypeAlias = Literal["certified", "falsified", "unknown"]


class TwoClasses(Part):
    """An input of the set at which the two original networks give different classes."""

    first: int | None = Field(ge=0, description="The class of the first network; null where an output is no number.")
    second: int | None = Field(ge=0, description="The class of the second one.")
    linf: NonNegative = Field(description="Largest change of an input, in data units.")
    confirmed_by: tuple[Text, ...] = Field(default=(), description="What ran the networks on it, the first one first.")


class ComparedResult(Part):
    """What is known of two networks at one sample and radius."""

    eps: Positive = Field(description="The radius in data units, one of threat_model.eps.")
    agree: Agreement | None = Field(
        description="certified: one class everywhere in the set; falsified: two classes were found; unknown: neither; "
        "null where outputs make no classes."
    )
    method: Text | None = Field(default=None, description="The method that decided it.")
    reason: Reason | None = Field(default=None, description="For `unknown`: why.")
    found: TwoClasses | None = Field(default=None, description="For `falsified`: the input that was found.")
    difference_proved: NonNegative | None = Field(
        default=None, description="No output of the two differs by more, anywhere in the set; null: nothing is proved."
    )
    difference_found: NonNegative | None = Field(
        default=None, description="Largest difference of an output of the two that was seen in the set."
    )
    seconds: Seconds | None = Field(default=None, description="Time spent on it.")

    @model_validator(mode="after")
    def _check_verdict(self) -> Self:
        if (self.found is not None) != (self.agree == "falsified"):
            raise ValueError(f"a falsified agreement, and no other, has the input found; this one is {self.agree}")
        if (self.reason is not None) != (self.agree == "unknown"):
            raise ValueError(f"an unknown agreement, and no other, has a reason; this one is {self.agree}")
        if self.found is not None and self.found.first == self.found.second:
            raise ValueError("at the input found both networks have one class")
        return self


class ComparedSample(Part):
    """One sample with the classes of both networks."""

    index: Count = Field(description="Position in the data file.")
    first: int | None = Field(default=None, ge=0, description="The class of the first network at the sample itself.")
    second: int | None = Field(default=None, ge=0, description="The class of the second one.")
    results: tuple[ComparedResult, ...] = Field(default=(), description="One entry per radius.")


class ComparedCounts(Part):
    """How many samples have which agreement at one radius; the three counts sum to n where outputs make classes."""

    eps: Positive = Field(description="The radius in data units, one of threat_model.eps.")
    n: Count = Field(description="Samples that were compared.")
    certified: Count = Field(description="Proved: one class everywhere in the set.")
    falsified: Count = Field(description="An input of the set has two classes.")
    unknown: Count = Field(description="Neither.")
    difference_proved: NonNegative | None = Field(
        default=None, description="The largest of the samples' proved bounds; null where a sample has none."
    )
    difference_found: NonNegative | None = Field(default=None, description="The largest difference that was seen.")


class Comparison(Part):
    """Two networks on the same inputs, the first of which is the report's model."""

    second: ModelInfo = Field(description="The file of the other network.")
    check: AgreementCheck | None = Field(default=None, description="How well its implicit model agrees with it.")
    forms: tuple[Text, ...] = Field(
        default=(), description="How the two were written as one model: apart, or with differences as states."
    )
    has_classes: bool = Field(description="Whether the largest output is a class.")
    per_eps: tuple[ComparedCounts, ...] = Field(default=(), description="One entry per radius.")
    samples: tuple[ComparedSample, ...] = Field(default=(), description="Every sample.")
