"""What was found: verdicts, bounds, checks, properties, predictions, gate rules, diagnostics."""

from __future__ import annotations

from typing import Literal, Self, TypeAlias

from pydantic import Field, model_validator

from idl_audit.report.schema.base import (
    Count,
    Fingerprint,
    Level,
    NonNegative,
    Part,
    Positive,
    PropertyResult,
    Repeated,
    Seconds,
    Sha256,
    Text,
)
from idl_audit.report.schema.demand import OutputResult, PartCounts
from idl_audit.values.verdicts import ArithmeticName, Reason, Verdict


class CleanAccuracy(Part):
    """Samples that the network gets right without any perturbation."""

    k: Count = Field(description="Samples whose prediction is their label.")
    n: Count = Field(description="Samples that have a label.")

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if self.k > self.n:
            raise ValueError(f"clean.k = {self.k} exceeds clean.n = {self.n}")
        return self


class EpsSummary(Part):
    """How many samples have which verdict at one radius; the four counts sum to n."""

    eps: NonNegative = Field(description="The radius in data units, one of threat_model.eps.")
    n: Count = Field(description="Samples that were audited.")
    clean_wrong: Count = Field(description="Misclassified without any perturbation.")
    certified: Count = Field(description="Proved: no input of the set changes the prediction.")
    falsified: Count = Field(description="An input of the set is misclassified by the original network.")
    unknown: Count = Field(description="Neither.")
    timed_out: Count | None = Field(
        default=None,
        description="Of the unknown ones, those that the time limit ended: a machine with more time may decide them.",
    )
    parts: PartCounts | None = Field(
        default=None, description="Where what is demanded has parts: those of all samples, by verdict."
    )

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        total = self.clean_wrong + self.certified + self.falsified + self.unknown
        if self.timed_out is not None and self.timed_out > self.unknown:
            raise ValueError(f"timed_out = {self.timed_out} at eps {self.eps:g} exceeds unknown = {self.unknown}")
        if total != self.n:
            raise ValueError(f"the four counts at eps {self.eps:g} sum to {total}, not to n = {self.n}")
        return self


class Summary(Part):
    """The counts that gates and baselines read."""

    clean: CleanAccuracy | None = Field(default=None, description="Clean accuracy; null where there are no labels.")
    per_eps: tuple[EpsSummary, ...] = Field(default=(), description="One entry per radius.")
    verdicts_of: Literal["certify", "attack"] | None = Field(
        default=None, description="Whose verdicts they are: attack leaves unknown what certify may prove."
    )
    methods: tuple[Text, ...] = Field(default=(), description="The methods that were used, the cheapest first.")
    time_limit: Positive | None = Field(default=None, description="Seconds for one sample at one radius.")
    max_nodes: Count | None = Field(default=None, description="Nodes for one sample at one radius; null for no limit.")


class FeatureChange(Part):
    """A feature of a table that differs from the sample's."""

    feature: Text = Field(description="Its name.")
    before: Text = Field(description="Its value in the sample, with its unit, or its category.")
    after: Text = Field(description="Its value in the adversarial row.")


class Adversarial(Part):
    """An input of the set that the original network misclassifies."""

    class_: int | None = Field(
        validation_alias="class",
        serialization_alias="class",
        ge=0,
        description="The class that is predicted there; null where an output is no number.",
    )
    linf: NonNegative = Field(description="Largest change of an input, in data units.")
    l0: Count = Field(description="Number of inputs that change.")
    distance: NonNegative | None = Field(
        default=None, description="Size of the change in threat_model.norm, in data units, where that is not linf."
    )
    margin: float | None = Field(
        description="Output of the right class minus the largest other one, at most 0; null where one is no number."
    )
    confirmed_by: tuple[Text, ...] = Field(
        default=(), description="What ran the original network on it, and the exact arithmetic that agrees."
    )
    survives_8bit: bool | None = Field(default=None, description="Still misclassified after rounding to 8-bit pixels.")
    broken: tuple[Count, ...] = Field(
        default=(), description="Where what is demanded has parts: those that it breaks, the first twenty by number."
    )
    changes: tuple[FeatureChange, ...] = Field(
        default=(), description="With --features: the features that differ from the sample's."
    )
    parameters: tuple[float, ...] = Field(
        default=(),
        description="Of a perturbation: its parameters there, in the order of threat_model.perturbation, then those of "
        "the directions; of a patch its row and column. The network was asked about the float32 numbers next to the "
        "input that they make, exact arithmetic about that input.",
    )
    key: Text | None = Field(default=None, description="Name of the input in the file that --save wrote.")


class SampleResult(Repeated):
    """The verdict on one sample at one radius."""

    eps: NonNegative = Field(description="The radius in data units, one of threat_model.eps.")
    verdict: Verdict = Field(description="What is known.")
    method: Text | None = Field(default=None, description="The method that decided it, or came closest.")
    lower_bound: float | None = Field(default=None, description="Proved lower bound of the margin over the set.")
    margin_found: float | None = Field(default=None, description="Smallest margin that an attack found in the set.")
    adversarial: Adversarial | None = Field(default=None, description="For `falsified`: the input that was found.")
    reason: Reason | None = Field(default=None, description="For `unknown`: why.")
    worst: tuple[float, ...] = Field(
        default=(),
        description="Of a patch that changes no class as far as is known: row and column of the position that is open, "
        "or has the least proved bound; of shifts the signs of theirs.",
    )
    seconds: Seconds | None = Field(default=None, description="Time spent on it.")
    queries: Count | None = Field(
        default=None,
        description="Points at which attacks evaluated the network, or its implicit form where they descend on that.",
    )
    parts: PartCounts | None = Field(
        default=None, description="Where what is demanded has parts - outputs, labels, pixels -: those of each verdict."
    )
    outputs: tuple[OutputResult, ...] = Field(
        default=(), description="Of outputs and labels: each with its verdict and its proved interval."
    )
    beaten: tuple[Count, ...] = Field(
        default=(), description="Of a class that is to stay among the first: rivals that are proved to stay below it."
    )

    @model_validator(mode="after")
    def _check_verdict(self) -> Self:
        if (self.adversarial is not None) != (self.verdict is Verdict.FALSIFIED):
            raise ValueError(f"a falsified result, and no other, has an adversarial; this one is {self.verdict}")
        if (self.reason is not None) != (self.verdict is Verdict.UNKNOWN):
            raise ValueError(f"an unknown result, and no other, has a reason; this one is {self.verdict}")
        if self.verdict is Verdict.CERTIFIED and not (self.lower_bound is not None and self.lower_bound > 0):
            raise ValueError(f"a certified result needs lower_bound > 0, not {self.lower_bound}")
        return self


class LargestEps(Part):
    """Between which radii a sample is neither certified nor falsified, found by bisection."""

    certified: NonNegative | None = Field(description="The largest radius that was certified; null where none was.")
    falsified: NonNegative | None = Field(description="The smallest radius that was falsified; null where none was.")
    tried: Count = Field(description="Radii that were decided.")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.certified is not None and self.falsified is not None and not self.certified < self.falsified:
            raise ValueError(f"certified at eps {self.certified:g}, and falsified at {self.falsified:g}")
        return self


class SampleReport(Repeated):
    """One sample with its verdicts."""

    index: Count = Field(description="Position in the data file.")
    label: int | None = Field(default=None, ge=0, description="The right class; null where the data has none.")
    predicted: int | None = Field(default=None, ge=0, description="The class that the network predicts unperturbed.")
    fingerprint: Fingerprint | None = Field(
        default=None, description="BLAKE2b-128 of its numbers as float64, little-endian, in the model's order."
    )
    groups: dict[Text, Text] = Field(
        default_factory=dict, description="With --group-by: what each column of the data says of it."
    )
    results: tuple[SampleResult, ...] = Field(default=(), description="One entry per radius that was tried.")
    largest: LargestEps | None = Field(
        default=None,
        description="With --largest: the radii below the one given at which it is certified, or falsified.",
    )


class ObjectiveReport(Part):
    """How far an objective moves around one sample: the largest or smallest value that was reached, and a bound."""

    index: Count = Field(description="Position in the data file.")
    eps: NonNegative = Field(description="The radius in data units, one of threat_model.eps.")
    objective: Text = Field(
        description="l1: the l1 norm of the state; state: its squared distance from the sample's state; else the file "
        "that holds c and perhaps w of c . y + w . x, y the outputs, x the states."
    )
    objective_sha256: Sha256 | None = Field(default=None, description="SHA-256 of c and w, where a file holds them.")
    sense: Literal["largest", "smallest"] = Field(description="Which end of the objective was looked for.")
    at_sample: float | None = Field(description="The objective at the sample itself; null where it is no number.")
    reached: float | None = Field(
        description="The farthest value that was found in the set, by the original network where it reads outputs "
        "alone, else by the implicit model."
    )
    proved: float | None = Field(default=None, description="No input of the set goes beyond it; null where none is.")
    method: Text | None = Field(default=None, description="What found it; null where nothing beat the sample.")
    reason: Reason | None = Field(default=None, description="Why the linear program gave nothing, where it did not.")
    seconds: Seconds | None = Field(default=None, description="Time spent on it.")


class MethodBounds(Part):
    """How tight the outputs' bounds are once a method has been used on all samples."""

    method: Text = Field(description="norm, norm-matrix, sensitivity, interval or linear, in the order of use.")
    n: Count = Field(description="Samples that it was used on.")
    mean_width: NonNegative | None = Field(
        description="Mean width of the outputs' intervals, those of earlier methods included; of norm's own for norm. "
        "Null where one is infinite."
    )
    max_width: NonNegative | None = Field(description="Largest width; null where one is infinite.")
    unstable: NonNegative | None = Field(
        default=None, description="Unstable states of a sample, mean over the samples; null where some have no bounds."
    )
    seconds: Seconds | None = Field(default=None, description="Time spent on the samples.")


class OutputBounds(Part):
    """Where the outputs of one sample lie, whatever input of its set is chosen."""

    index: Count = Field(description="Position in the data file.")
    lower: tuple[float | None, ...] = Field(description="Proved lower bounds, one per output; null where none is.")
    upper: tuple[float | None, ...] = Field(description="Proved upper bounds, likewise.")


class BlockBounds(Part):
    """How far the states of one block, or the outputs, can move within the sets of one radius.

    Widths are of pre-activations z = A x + B u + b, or of outputs, over all states and samples.
    """

    block: Text = Field(description="Name of the block; `outputs` for the outputs.")
    part: Literal["states", "outputs"] = Field(default="states", description="What the entry speaks of.")
    eps: Positive = Field(description="The radius in data units.")
    size: Count | None = Field(default=None, description="Number of states or outputs.")
    mean_width: NonNegative | None = Field(description="Mean width of the intervals; null where one is infinite.")
    max_width: NonNegative | None = Field(description="Largest width; null where one is infinite.")
    dead: Count = Field(
        default=0,
        description="States whose activation is constant on its interval, on the sample with the most unstable ones.",
    )
    active: Count = Field(default=0, description="States whose activation is linear on its interval, on that sample.")
    unstable: Count = Field(default=0, description="All others, on that sample: what relaxations are loose on.")
    mean_unstable: NonNegative | None = Field(default=None, description="Unstable states, mean over the samples.")
    methods: tuple[MethodBounds, ...] = Field(default=(), description="For the outputs: what each method gave.")
    samples: tuple[OutputBounds, ...] = Field(default=(), description="For the outputs: the interval of each sample.")


class NonzeroChange(Part):
    """Nonzero entries before and after compression."""

    before: Count = Field(description="Of the model that was read.")
    after: Count = Field(description="Of the smaller model.")


class Drift(Part):
    """Largest change of an output by compression."""

    guaranteed: NonNegative | None = Field(
        default=None, description="Proved upper bound over the box around the samples, or that of --bounds."
    )
    measured: NonNegative | None = Field(default=None, description="Largest that was seen on samples.")
    at_samples: NonNegative | None = Field(default=None, description="Proved upper bound at the samples themselves.")
    offset: NonNegative | None = Field(
        default=None, description="For all inputs u, proved: at most offset + slope max|u_j|."
    )
    slope: NonNegative | None = Field(default=None, description="The factor of max|u_j| in it.")


class BlockDrift(Part):
    """How far the outputs would move if one block alone were compressed: bounds as in `drift`."""

    block: Text = Field(description="Name of the block; `outputs` for C and D.")
    nonzeros: NonzeroChange = Field(description="Of the block's own coefficients.")
    drift: Drift = Field(description="Change of the output.")


class Removed(Part):
    """States that an exact reduction removed."""

    constant: Count = Field(description="The input does not reach them.")
    dead: Count = Field(description="Their activation is constant on what can occur.")
    unobserved: Count = Field(description="No output depends on them.")


class CertifiedLevel(Part):
    """One level of a compression that was tried, and what is certified of it."""

    setting: Text = Field(description="The threshold, the bits, or the rank.")
    nonzeros: Count = Field(description="Stored nonzero coefficients of A, B, C, D; a kernel counts once.")
    certified: Count = Field(description="Samples that are certified, of those looked at.")
    looked_at: Count = Field(description="Samples looked at: all, or until too few were left.")
    kept: bool = Field(description="Whether enough are certified.")


class KeptCertified(Part):
    """How far the model was compressed for so many samples to stay certified."""

    eps: Positive = Field(description="The radius, in data units.")
    n: Count = Field(description="Samples.")
    before: Count = Field(description="Samples that are certified of the model as it is.")
    least: Count = Field(description="So many must be.")
    time_limit: Positive = Field(description="Seconds for each verdict.")
    max_nodes: Count | None = Field(default=None, description="Nodes for each verdict; null for no limit.")
    levels: tuple[CertifiedLevel, ...] = Field(description="What was tried, in this order.")


class Compression(Part):
    """A smaller model and how far it can stray."""

    kind: Text = Field(description="reduce, prune, quantize, rank.")
    setting: Text | None = Field(default=None, description="The threshold, the bits, or the rank.")
    states: NonzeroChange | None = Field(default=None, description="Number of states.")
    nonzeros: NonzeroChange = Field(description="Stored nonzero coefficients of A, B, C, D; a kernel counts once.")
    drift: Drift = Field(description="Change of the output.")
    blocks: tuple[BlockDrift, ...] = Field(default=(), description="Each block alone, the largest drift first.")
    removed: Removed | None = Field(default=None, description="For reduce: what is gone.")
    unused_inputs: tuple[int, ...] = Field(default=(), description="For reduce: inputs that no output depends on.")
    changed_predictions: Count | None = Field(default=None, description="Samples whose predicted class changed.")
    kept_certified: KeptCertified | None = Field(default=None, description="Of --keep-certified.")


class PropertyReport(Part):
    """One VNN-LIB property: sat means that a counterexample exists."""

    onnx: Text = Field(description="The model file.")
    vnnlib: Text = Field(description="The property file.")
    result: PropertyResult = Field(description="In the competition's words.")
    truth: PropertyResult | None = Field(default=None, description="The published answer, where there is one.")
    method: Text | None = Field(default=None, description="The method that decided it.")
    seconds: Seconds | None = Field(default=None, description="Time spent on it.")
    witness: Text | None = Field(default=None, description="For sat: the input, or the file that holds it.")
    confirmed_by: tuple[Text, ...] = Field(
        default=(), description="For sat: what ran the original network on it, and the exact arithmetic that agrees."
    )
    time_limit: Positive | None = Field(default=None, description="Seconds that it was given.")
    max_nodes: Count | None = Field(default=None, description="Nodes that it was given; null for no limit.")
    arithmetic: ArithmeticName = Field(
        default="real",
        description="What unsat speaks of: the network in real numbers, or as it is computed in floats.",
    )
    problem: Text | None = Field(default=None, description="Why it could not be judged; null where it was.")
    sha256: Sha256 | None = Field(
        default=None, description="Of network and property together, weights beside the network included."
    )
    external_files: tuple[Text, ...] = Field(default=(), description="Files beside the network that hold its weights.")

    @model_validator(mode="after")
    def _check_problem(self) -> Self:
        if self.problem is not None and self.result != "unknown":
            raise ValueError(f"a property that could not be judged is unknown; this one is {self.result}")
        return self


class Prediction(Part):
    """The implicit model's output for one sample."""

    index: Count = Field(description="Position in the data file.")
    label: int | None = Field(default=None, ge=0, description="The right class; null where the data has none.")
    predicted: int | None = Field(default=None, ge=0, description="The largest output; null for a single output.")
    output: tuple[float, ...] = Field(description="The output y.")
    iterations: Count | None = Field(default=None, description="Steps to the state; null where one pass gives it.")
    residual: NonNegative | None = Field(default=None, description="Largest entry of |x - phi(A x + B u + b)|.")


class ConfidenceInterval(Part):
    """Where a rate may lie in the population that the samples were drawn from."""

    low: NonNegative = Field(description="Lower end.")
    high: NonNegative = Field(description="Upper end.")
    method: Text = Field(description="Name and level of the interval.")


class RuleResult(Part):
    """One rule of the gate."""

    rule: Text = Field(description="The rule, as it was written.")
    level: Literal["warning", "error"] = Field(default="error", description="Whether its failure fails the gate.")
    passed: bool = Field(description="Whether it holds.")
    expected: Text | None = Field(default=None, description="What was asked for.")
    found: Text | None = Field(default=None, description="What the report says.")
    k: Count | None = Field(default=None, description="Samples that count in favour.")
    n: Count | None = Field(default=None, description="Samples in all.")
    interval: ConfidenceInterval | None = Field(default=None, description="Of k / n; no rule is judged by it.")


class NewlyFalsified(Part):
    """A sample that can be attacked now, and was not in the baseline."""

    index: Count = Field(description="Position in the data file.")
    eps: Positive = Field(description="The radius in data units.")
    before: Verdict = Field(description="Its verdict in the baseline.")


class KnownSample(Part):
    """An entry of a list of samples that may fail (`gate --known`)."""

    state: Literal["apart", "expired", "absent"] = Field(
        description="apart: no rule counts the sample; expired: its last day is past, rules count it, and the gate "
        "fails; absent: the report has no such sample."
    )
    indices: tuple[Count, ...] = Field(description="Positions in the data file of the samples that are meant.")
    index: Count | None = Field(default=None, description="The position that the entry names.")
    fingerprint: Text | None = Field(default=None, description="The fingerprint that the entry names.")
    reason: Text = Field(description="Why the sample may fail, in the words of the list.")
    until: Text | None = Field(default=None, description="The last day of the entry, YYYY-MM-DD; null for no end.")


class Gate(Part):
    """Rules and a baseline, judged over the report."""

    passed: bool = Field(description="Whether every rule of level error holds.")
    baseline: Text | None = Field(default=None, description="The baseline's file.")
    rules: tuple[RuleResult, ...] = Field(default=(), description="Every rule with its outcome.")
    newly_falsified: tuple[NewlyFalsified, ...] = Field(default=(), description="Compared with the baseline.")
    notes: tuple[Text, ...] = Field(default=(), description="What else differs from the baseline: model, methods, ...")
    known: tuple[KnownSample, ...] = Field(
        default=(), description="Samples that may fail, with reasons; those that are `apart` no rule counts."
    )

    @model_validator(mode="after")
    def _check_passed(self) -> Self:
        if self.passed and any(rule.level == "error" and not rule.passed for rule in self.rules):
            raise ValueError("gate.passed is true although a rule of level error failed")
        return self


TallyOf: TypeAlias = Literal[
    "close margins",
    "verdicts in exact arithmetic",
    "denied points",
    "verdicts without a rounding bound",
    "verdicts out of time",
    "verdicts without a certificate",
]


class Tally(Part):
    """What the sentence of a diagnostic counts, so that those of several reports make one."""

    of: TallyOf = Field(description="What is counted.")
    about: Text = Field(default="", description="Words of the sentence that are no figures.")
    count: Count = Field(description="How many verdicts or points.")
    samples: Count = Field(description="Of how many samples.")
    first: tuple[Text, ...] = Field(default=(), max_length=10, description="The first of them.")
    largest: NonNegative | None = Field(default=None, description="The largest figure; null where it has no bound.")


class Diagnostic(Part):
    """Something the user should know."""

    code: str = Field(pattern=r"^IDL[0-9]{3}$", description="IDLnnn, stable across versions.")
    level: Level = Field(description="How much it matters.")
    message: Text = Field(description="One sentence: what and where.")
    hint: Text | None = Field(default=None, description="What would work.")
    where: Text | None = Field(default=None, description="File, node, block or sample.")
    tally: Tally | None = Field(default=None, description="Of a sentence about several verdicts: what it counts.")
