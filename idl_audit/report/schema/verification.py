"""What `verify` found: what the checked file claims, in full, and whether all of it holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from idl_audit.report.schema.base import Count, NonNegative, Part, Sha256, Text
from idl_audit.report.schema.subject import PreprocessingInfo
from idl_audit.values.verdicts import ArithmeticName, NormName


class Numbers(Part):
    """An array that a claim is about: enough of it to tell it from any other."""

    shape: tuple[Count, ...] = Field(description="Its shape.")
    sha256: Sha256 = Field(description="SHA-256 of its numbers as little-endian float64, the last axis fastest.")
    least: float | None = Field(default=None, description="Its least number; null for an array without numbers.")
    greatest: float | None = Field(default=None, description="Its greatest number.")


class PropertyClaim(Part):
    """The query that a certificate of a property answers: no input of its boxes makes an alternative hold."""

    file: Text = Field(description="The property file that it was compared with, or the name that the file states.")
    sha256: Sha256 = Field(description="SHA-256 of the property file, or what the checked file states of it.")
    compared: bool = Field(description="Whether boxes and alternatives were compared with those of a property file.")
    boxes: Numbers = Field(description="Lower and upper ends, shape (boxes, 2, inputs).")
    alternatives: Numbers = Field(
        description="All rows, each with its offset behind it, shape (rows, outputs + 1): rows y + offsets <= 0."
    )
    strict: Numbers | None = Field(
        default=None, description="1 for the rows that say < 0 in place of <= 0, shape (rows,); null where none does."
    )
    n_alternatives: Count = Field(description="Alternatives of all boxes.")


class NetworkFacts(Part):
    """A network of a query, and the file that it was checked with."""

    name: Text = Field(description="Its name in the query.")
    path: Text = Field(description="Its file.")
    sha256: Sha256 = Field(description="SHA-256 of it, and of what lies beside it.")
    equal_to: Text | None = Field(default=None, description="The network whose file it has; null where it has its own.")


class QueryFacts(Part):
    """The VNN-LIB 2 query that a certificate answers: no assignment satisfies it."""

    file: Text = Field(description="The query's file, of which everything was made anew.")
    sha256: Sha256 = Field(description="SHA-256 of it.")
    networks: tuple[NetworkFacts, ...] = Field(description="The networks in the order of the query.")
    elements: tuple[Text, ...] = Field(description="Element types of the variables.")
    boxes: Count = Field(description="Boxes of inputs that the assertions make; 0 where they contradict each other.")
    alternatives: Count = Field(description="Alternatives of all boxes.")
    left: Count = Field(description="Those of them that the file has proofs for; ranges alone refute the others.")


class SecondModel(Part):
    """The other network of a claim about two, and what turns inputs into its own."""

    path: Text = Field(description="Its file.")
    sha256: Sha256 = Field(description="SHA-256 of it.")
    output: Text | None = Field(default=None, description="Name of the output; null where it has no name.")
    stripped_output: Text | None = Field(default=None, description="A last operator that is no part of it.")
    threshold: float | None = Field(default=None, description="Of one output: class 1 is above it, class 0 is not.")
    preprocessing: PreprocessingInfo = Field(default_factory=PreprocessingInfo, description="As for the first network.")


class Claim(Part):
    """What exactly was checked; what a file merely says of itself is called so."""

    kind: Literal[
        "class",
        "top",
        "limits",
        "pixels",
        "property",
        "query",
        "sensitivity",
        "agreement",
        "difference",
        "monotone",
        "stays",
        "never",
        "rising",
        "rows",
    ] = Field(
        description="One class for all inputs of a set, a class among the first, outputs on their side of limits, "
        "pixels of one class each, a property without counterexample, a VNN-LIB 2 query that no assignment "
        "satisfies, bounds S of all slopes; of two networks, one class of both at every input of a set, or limits "
        "of how far their outputs differ there; a score that never goes the wrong way while an input rises; over a "
        "whole range, outputs on their side of limits, a class that is never predicted, such a score; one class for "
        "all valid rows of a table around a sample."
    )
    arithmetic: ArithmeticName = Field(
        default="real",
        description="Of the network that the claim is about: exact, or rounded as runtimes round it in the floats that "
        "it computes in.",
    )
    output: Text | None = Field(
        default=None, description="Name of the output that was checked; null where the model's output has no name."
    )
    stripped_output: Text | None = Field(
        default=None, description="A last operator that is no part of what was checked, such as Softmax."
    )
    preprocessing: PreprocessingInfo = Field(
        default_factory=PreprocessingInfo,
        description="What turns the inputs that the claim speaks of into the model's.",
    )
    label: Count | None = Field(default=None, description="The class.")
    top: Count | None = Field(default=None, description="Among how many classes it stays.")
    parts: Numbers | None = Field(default=None, description="The outputs or pixels that are proved, by number.")
    output_limits: Numbers | None = Field(
        default=None,
        description="Limits of these outputs, shape (limits, 4): output, side (1: not below, -1: not above), value, "
        "and 1 where it is not reached either.",
    )
    pixel_labels: Numbers | None = Field(default=None, description="The class of every pixel.")
    threshold: float | None = Field(
        default=None, description="Of one output: class 1 is above it, class 0 is not; null where outputs compete."
    )
    eps: NonNegative | None = Field(default=None, description="The radius, in the units of the inputs.")
    norm: NormName = Field(default="linf", description="The norm that eps bounds.")
    centre: Numbers | None = Field(default=None, description="The sample that the set lies around.")
    sigma: Numbers | None = Field(default=None, description="Radii of the inputs for eps = 1; null stands for ones.")
    clip: tuple[float, float] | None = Field(
        default=None, description="Inputs outside this range are no part of it; those of a perturbation saturate there."
    )
    free: tuple[Count, ...] = Field(default=(), description="Inputs, by number, that move through the whole of clip.")
    cardinality: Count | None = Field(default=None, description="How many inputs change at most; null for all.")
    direction: Literal["+", "-"] | None = Field(
        default=None,
        description="While the free input rises, the score of output `label` never falls (+) or rises (-).",
    )
    perturbation: Text | None = Field(
        default=None,
        description="What changes in place of every input, eps times; inputs saturate at clip's ends.",
    )
    directions: tuple[Numbers, ...] | None = Field(
        default=None, description="Directions that inputs change along, their least and their greatest parameters."
    )
    range: tuple[Numbers, ...] = Field(
        default=(),
        description="Of a whole range, or of the rows of a table: least and greatest inputs, then of each feature "
        "that has values of its own the numbers of its inputs, and below them its values.",
    )
    rules: Numbers | None = Field(
        default=None,
        description="Of rows of a table: each rule's factors of the inputs, and the most that their sum is.",
    )
    picture: tuple[Count, ...] = Field(
        default=(), description="Shape of an input as a picture, where the perturbation depends on it."
    )
    index: Count | None = Field(default=None, description="Position of the sample in its data, as the file states it.")
    leaves: Count | None = Field(default=None, description="Leaves of the trees that prove it.")
    property: PropertyClaim | None = Field(default=None, description="The property.")
    query: QueryFacts | None = Field(default=None, description="The VNN-LIB 2 query.")
    matrix: Numbers | None = Field(default=None, description="S, outputs by inputs: |dy| <= S |du|.")
    second: SecondModel | None = Field(default=None, description="The other network of a claim about two.")
    limits: Numbers | None = Field(
        default=None, description="Of each output: |y - y'| is below it, or 0 where it is 0, everywhere in the set."
    )


class CheckedFile(Part):
    """One of several files that were checked."""

    file: Text = Field(description="Its name.")
    claim: Text | None = Field(default=None, description="What it claims, and by which proofs.")
    accepted: bool = Field(description="Whether every claim of it holds.")
    checked: Count = Field(description="Claims that were checked; 0 where it could not be read.")
    refused: tuple[Text, ...] = Field(default=(), description="Claims that do not hold, and why.")


class Verification(Part):
    """A witness or certificate that was checked again, without a solver."""

    file: Text = Field(description="The file that was checked.")
    claim: Text | None = Field(default=None, description="What it claims, and by which proofs.")
    about: Claim | None = Field(
        default=None, description="The claim in full; null where the file does not fit the model."
    )
    norm_inf: NonNegative | None = Field(
        default=None, description="||S||_inf of an accepted S: how far an output moves at most, in data units."
    )
    accepted: bool = Field(description="Whether every claim holds.")
    checked: Count = Field(description="Claims that were checked.")
    refused: tuple[Text, ...] = Field(default=(), description="Claims that do not hold, and why.")
    files: tuple[CheckedFile, ...] = Field(
        default=(), description="Each of several files, in the order in which they were given; empty for one."
    )
