"""What training reached: the trade-offs that were tried, and the verdicts before and after."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from idl_audit.report.schema.base import Count, NonNegative, Part, Positive, Seconds, Sha256, Text
from idl_audit.report.schema.results import EpsSummary


class TradeOff(Part):
    """Weights that training reached, judged on samples kept apart; estimates to choose by, no verdicts."""

    name: Text = Field(description="How they came about.")
    steps: Count = Field(description="Batches of the run.")
    clean: Count = Field(description="Samples whose class is the label.")
    by_intervals: Count = Field(description="Samples that intervals certify.")
    by_lines: Count = Field(description="Samples that intervals or linear bounds certify.")
    branched: Count = Field(description="Open samples that were branched on.")
    by_branching: Count = Field(description="Those of them that branching certified.")
    certified: NonNegative = Field(description="About how many would be certified were all open samples branched on.")


class Audited(Part):
    """Verdicts of one of the two files on samples that neither training nor choice has seen."""

    model_sha256: Sha256 = Field(description="Of the file.")
    counts: EpsSummary = Field(description="Counts of verdicts.")


class Hardening(Part):
    """The fine-tuning of a network's weights for certified robustness."""

    method: Text = Field(description="What was trained for.")
    eps: Positive = Field(description="The radius, in data units.")
    minutes: Positive = Field(description="Minutes of one core that training was counted for.")
    seconds: Seconds = Field(description="Processor time that training and choice took.")
    trained_on: Count = Field(description="Samples that were trained on.")
    held_out: Count = Field(description="Samples that the choice was made by.")
    judged: Count = Field(description="Of them, those that provers were asked about.")
    least_clean: Count = Field(description="Of them, those that had to stay right.")
    weights: tuple[Text, ...] = Field(description="Initializers that were trained.")
    before: TradeOff = Field(description="The network as it was.")
    front: tuple[TradeOff, ...] = Field(description="What was tried.")
    chosen: Text | None = Field(default=None, description="Name of the trade-off that was written; null for none.")
    audited_before: Audited | None = Field(default=None, description="Verdicts on --audit for the given file.")
    audited_after: Audited | None = Field(default=None, description="Verdicts on --audit for the file written.")

    @model_validator(mode="after")
    def _check_chosen(self) -> Self:
        if self.chosen is not None and self.chosen not in {one.name for one in self.front}:
            raise ValueError(f"hardening.chosen names no trade-off: {self.chosen}")
        return self
