"""The whole report: one document, whichever command wrote it; sections that it did not fill are null or empty."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from idl_audit.report.schema.base import Part, Seconds, Status, Text, WhyIncomplete
from idl_audit.report.schema.comparison import Comparison
from idl_audit.report.schema.demand import DemandInfo
from idl_audit.report.schema.everywhere import Everywhere
from idl_audit.report.schema.hardening import Hardening
from idl_audit.report.schema.monotonicity import Monotonicity
from idl_audit.report.schema.results import (
    BlockBounds,
    Compression,
    Diagnostic,
    Gate,
    ObjectiveReport,
    Prediction,
    PropertyReport,
    SampleReport,
    Summary,
)
from idl_audit.report.schema.sensitivity import Sensitivity
from idl_audit.report.schema.subject import Conversion, DataInfo, Environment, ModelInfo, ThreatModel, Tool
from idl_audit.report.schema.training import Training
from idl_audit.report.schema.verification import Verification

SCHEMA_VERSION: Final = "1.2"
"""What is written. 1.1, which is read as well, knows no shards and no tallies of diagnostics, and 1.0 lacks the
fingerprints of weights beside a model, of samples, radii, groups and objectives besides."""
READ_VERSIONS: Final = ("1.0", "1.1", SCHEMA_VERSION)


class Timing(Part):
    """Where the time went."""

    total: Seconds = Field(description="Wall time of the command.")
    steps: dict[Text, Seconds] = Field(default_factory=dict, description="Wall time of each step.")


class Report(Part):
    """What one command of idl-audit found. Counts, never rounded rates; times in seconds; eps in data units."""

    schema_version: Literal["1.0", "1.1", "1.2"] = Field(default="1.2", description="Version of this schema.")
    tool: Tool = Field(description="The program that wrote the report.")
    command: Text = Field(description="The command, without its options: certify, attack, convert, ...")
    command_line: Text | None = Field(default=None, description="The command as it was typed, options included.")
    created: AwareDatetime = Field(description="When the report was written, with time zone.")
    status: Status = Field(description="`incomplete` where not all of the work was done: `why_incomplete` says why.")
    why_incomplete: WhyIncomplete | None = Field(
        default=None,
        description="interrupted: the user ended it. not_judged: some samples or properties could not be judged.",
    )
    environment: Environment = Field(description="What the figures depend on besides model, data and options.")
    model: ModelInfo | None = Field(default=None, description="The model file.")
    conversion: Conversion | None = Field(default=None, description="The implicit model.")
    data: DataInfo | None = Field(default=None, description="The samples.")
    threat_model: ThreatModel | None = Field(default=None, description="How an input may be perturbed.")
    demand: DemandInfo | None = Field(
        default=None, description="What verdicts are about, where it is not the class of the largest output."
    )
    summary: Summary | None = Field(default=None, description="Counts of verdicts.")
    samples: tuple[SampleReport, ...] = Field(default=(), description="Every sample with its verdicts.")
    sensitivity: Sensitivity | None = Field(default=None, description="The sensitivity matrix.")
    bounds: tuple[BlockBounds, ...] = Field(default=(), description="Bounds on the states, per block and radius.")
    objectives: tuple[ObjectiveReport, ...] = Field(
        default=(), description="How far an objective moves, per sample and radius."
    )
    verification: Verification | None = Field(default=None, description="A file that was checked again.")
    compression: Compression | None = Field(default=None, description="A smaller model.")
    training: Training | None = Field(default=None, description="A model that was made from data.")
    comparison: Comparison | None = Field(default=None, description="Another network, compared with this one.")
    monotonicity: Monotonicity | None = Field(default=None, description="Which way a score goes as one input rises.")
    everywhere: Everywhere | None = Field(default=None, description="Statements over the whole range of the inputs.")
    hardening: Hardening | None = Field(default=None, description="Weights that were trained.")
    properties: tuple[PropertyReport, ...] = Field(default=(), description="VNN-LIB properties.")
    predictions: tuple[Prediction, ...] = Field(default=(), description="Outputs of the implicit model.")
    gate: Gate | None = Field(default=None, description="Rules that were judged over the report.")
    diagnostics: tuple[Diagnostic, ...] = Field(default=(), description="What the user should know.")
    artifacts: tuple[Text, ...] = Field(default=(), description="Files that the command wrote besides this one.")
    timing: Timing | None = Field(default=None, description="Where the time went.")

    @model_validator(mode="after")
    def _check_status(self) -> Self:
        if self.why_incomplete is not None and self.status == "complete":
            raise ValueError(f"a complete report is not {self.why_incomplete}")
        return self

    @model_validator(mode="after")
    def _check_radii(self) -> Self:
        """Every radius that results speak of is one of the threat model's."""
        known = {eps.value for eps in self.threat_model.eps} if self.threat_model else set()
        used = {entry.eps for entry in self.summary.per_eps} if self.summary else set()
        used |= {result.eps for sample in self.samples for result in sample.results}
        used |= {entry.eps for entry in self.bounds} | {entry.eps for entry in self.objectives}
        if self.comparison is not None:
            used |= {entry.eps for entry in self.comparison.per_eps}
            used |= {result.eps for sample in self.comparison.samples for result in sample.results}
        if self.monotonicity is not None:
            used |= {entry.eps for entry in self.monotonicity.per_eps}
            used |= {result.eps for sample in self.monotonicity.samples for result in sample.results}
        strangers = sorted(used - known)
        if strangers:
            raise ValueError(f"eps {strangers[0]:g} has results, but threat_model.eps does not list it")
        return self
