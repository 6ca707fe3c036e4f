"""What `sensitivity` found: the matrix S for all inputs or on the boxes of samples, and what was read off it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from idl_audit.report.schema.base import Count, NonNegative, Part, Positive, Sha256, Text
from idl_audit.report.schema.subject import PreprocessingInfo


class TopInput(Part):
    """An input that moves an output much: one entry of the sensitivity matrix S."""

    output: Count = Field(description="Output, a row of S.")
    input: Count = Field(description="Input, a column of S, flat in the model's own order.")
    value: NonNegative = Field(description="The entry: output change per unit of input change, in data units.")


class ClassMargin(Part):
    """How far the difference of two outputs moves: a row of S for y_label - y_rival, tighter than the sum of two."""

    label: Count = Field(description="The class of --class.")
    rival: Count = Field(description="The other class.")
    row_sum: NonNegative = Field(description="Change of y_label - y_rival at most, when every input moves by 1.")
    sum_of_rows: NonNegative = Field(description="What the rows of S of the two outputs say of it: never less.")
    top_inputs: tuple[TopInput, ...] = Field(default=(), description="Its largest entries; `output` is the rival.")


class SmallestScalar(Part):
    """The least of the numbers that bound every output's change by the largest change of an input."""

    name: Literal["norm_inf", "rho_norm_bound", "spectral_inf"] = Field(description="The field that it comes from.")
    value: NonNegative = Field(description="||y(u) - y(v)||_inf <= value ||u - v||_inf.")


class InducedNorm(Part):
    """How far all outputs move together: ||y(u) - y(v)||_p <= value ||u - v||_p, a bound by S, not the gain itself."""

    norm: Literal["l2", "l1"] = Field(description="p, of the inputs and of the outputs.")
    value: NonNegative = Field(description="The bound, in data units.")
    by: Literal["S", "spectral norms"] = Field(
        description="||S||_(p->p), or of l2 the product of spectral norms where it is less."
    )


class Cardinality(Part):
    """Bounds where only few inputs change: |y(u) - y(v)| if u and v differ in k inputs, by sigma at most."""

    k: Count = Field(description="Inputs that may change.")
    sigma: Positive = Field(description="How far each of them may, in data units.")
    bounds: tuple[NonNegative, ...] = Field(description="One per output: sigma times the k largest entries of its row.")


class TopGroup(Part):
    """A group of inputs that moves an output much."""

    output: Count = Field(description="Output, a row of S.")
    group: Text = Field(description="Name of the group.")
    value: NonNegative = Field(description="Change of the output at most, when every input of the group moves by 1.")


class InputGroups(Part):
    """Sums of S over groups of inputs."""

    source: Text = Field(description="What --groups named: a file, or channels, rows, columns, patches.")
    sha256: Sha256 | None = Field(default=None, description="SHA-256 of the group of each input.")
    names: tuple[Text, ...] = Field(description="The groups, in the order of the matrix `group_sums` of --save.")
    top: tuple[TopGroup, ...] = Field(default=(), description="The largest groups of each output.")


class InputMap(Part):
    """S summed over outputs and channels, in the shape of an image: where the network is sensitive at all."""

    height: Count = Field(description="Rows of the map.")
    width: Count = Field(description="Columns of the map.")
    block: Count = Field(default=1, description="Side of the squares of pixels of which the largest value is given.")
    values: tuple[NonNegative, ...] = Field(description="height x width values, row by row.")

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if len(self.values) != self.height * self.width:
            raise ValueError(f"the map has {len(self.values)} values, not {self.height} x {self.width}")
        return self


class LocalSensitivity(Part):
    """S within the box around one sample."""

    index: Count = Field(description="Position in the data file.")
    norm_inf: NonNegative = Field(description="||S||_inf there.")
    row_sums: tuple[NonNegative, ...] = Field(default=(), description="Row sums of S there, one per output.")


class Sensitivity(Part):
    """The sensitivity matrix: |y(u) - y(v)| <= S |u - v|, entry by entry.

    A local S is the entrywise largest over the samples: it holds for u and v in the same sample's box.
    """

    kind: Literal["global", "local"] = Field(description="For all inputs, or within the boxes of the samples.")
    method: Text = Field(description="paper, centre-radius, half-step, or best of several.")
    eps: Positive | None = Field(default=None, description="For kind local: the radius of the boxes, in data units.")
    preprocessing: PreprocessingInfo | None = Field(
        default=None, description="From data units, which S speaks of, to the network's own input."
    )
    norm_inf: NonNegative | None = Field(default=None, description="||S||_inf, the largest row sum.")
    rho_norm_bound: NonNegative | None = Field(
        default=None, description="||B|| ||C|| / (1 - ||A||) + ||D|| after scaling: the much looser bound by norms."
    )
    spectral_inf: NonNegative | None = Field(
        default=None,
        description="sqrt(p) times a bound of the l2 gain, from proved spectral norms: it bounds what norm_inf bounds.",
    )
    smallest: SmallestScalar | None = Field(
        default=None, description="The least of norm_inf, rho_norm_bound, spectral_inf."
    )
    global_norm_inf: NonNegative | None = Field(
        default=None, description="For kind local: ||S||_inf of the global matrix."
    )
    state_bounds: Text | None = Field(
        default=None, description="For kind local: how states were bounded, interval or linear."
    )
    row_sums: tuple[NonNegative, ...] = Field(default=(), description="Row sums of S, one per output.")
    top_inputs: tuple[TopInput, ...] = Field(default=(), description="The largest entries of each row.")
    margins: tuple[ClassMargin, ...] = Field(
        default=(), description="For --class: the differences to the other outputs, the most sensitive first."
    )
    induced: InducedNorm | None = Field(default=None, description="For --norm: all outputs together in that norm.")
    cardinality: Cardinality | None = Field(default=None, description="For --sparse: bounds where few inputs change.")
    groups: InputGroups | None = Field(default=None, description="For --groups: sums over groups of inputs.")
    independent_pairs: Count | None = Field(
        default=None, description="Pairs of an output and an input without any path between them: proved independent."
    )
    input_map: InputMap | None = Field(default=None, description="Where inputs are images: S as one.")
    samples: tuple[LocalSensitivity, ...] = Field(default=(), description="For kind local: one entry per sample.")
    matrix_file: Text | None = Field(default=None, description="File that --save wrote S to.")
    images: tuple[Text, ...] = Field(default=(), description="Pictures that --images drew, one per output.")
    witness: Text | None = Field(default=None, description="File of the witness that `verify` checks.")

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.kind == "global" and (self.samples or self.global_norm_inf is not None or self.eps is not None):
            raise ValueError("a global sensitivity has no samples and no eps; one that has them is of kind local")
        return self
