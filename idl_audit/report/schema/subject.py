"""What was audited, with what, and under which threat: tool, environment, model, conversion, data, threat model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from idl_audit.report.schema.base import Count, NonNegative, Part, Positive, Seconds, Sha256, Text
from idl_audit.values.verdicts import ArithmeticName, NormName


class Tool(Part):
    """The program that wrote the report."""

    name: Text = Field(default="idl-audit", description="The program's name.")
    version: Text = Field(description="The program's version.")


class Environment(Part):
    """What the figures depend on besides model, data and options."""

    python: Text = Field(description="Version of Python.")
    platform: Text = Field(description="Operating system and processor.")
    versions: dict[Text, Text] = Field(default_factory=dict, description="Versions of the libraries that did the work.")
    threads: int | None = Field(default=None, ge=1, description="Threads that numerical libraries could use.")
    device: Text | None = Field(
        default=None, description="Where searches computed, and large products of proofs: cpu, or an accelerator."
    )
    seed: int | None = Field(default=None, description="Seed of every random choice.")


class InputInfo(Part):
    """One of several inputs of a network: a part of the input vector."""

    name: Text = Field(description="The input's name in the model file.")
    shape: tuple[int, ...] = Field(description="Its shape for one sample, a batch axis of 1 included.")


class FixedInfo(Part):
    """An input that was held fixed (--fix)."""

    name: Text = Field(description="The input's name in the model file.")
    sha256: Sha256 = Field(description="SHA-256 of its name and numbers.")


class ModelInfo(Part):
    """The model file as it was read; nothing of it was run."""

    path: Text = Field(description="The file, as it was given.")
    format: Text = Field(description="Decided by content: onnx, torch, implicit, ...")
    sha256: Sha256 = Field(
        description="SHA-256 of the file; where it alone does not say which function the model is, of all that does: "
        "weights in files beside it, the network that a function of Python (--arch) or a pickled module makes, inputs "
        "that are held fixed, another order of the inputs."
    )
    file_sha256: Sha256 | None = Field(default=None, description="SHA-256 of the file alone.")
    external_files: tuple[Text, ...] = Field(default=(), description="Files beside the model that hold its weights.")
    external_sha256: tuple[Sha256, ...] = Field(default=(), description="SHA-256 of each of them.")
    output_name: Text | None = Field(
        default=None, description="Which output was audited (--output-name); null where the file has one."
    )
    arch: Text | None = Field(default=None, description="The function that returned the network (--arch).")
    input_shape: tuple[int, ...] = Field(description="Shape of the input for one sample, a batch axis of 1 included.")
    inputs: tuple[InputInfo, ...] = Field(
        default=(), description="The network's inputs that the input vector stands for, in this order; empty for one."
    )
    fixed_inputs: tuple[FixedInfo, ...] = Field(default=(), description="Inputs that were held fixed (--fix).")
    n_outputs: Count = Field(description="Numbers in the output for one sample.")
    n_parameters: Count = Field(description="Numbers in floating-point constants.")
    opset: int | None = Field(default=None, description="Version of ONNX's operator set.")
    producer: Text = Field(default="", description="The program that wrote the file, by its own account.")
    input_type: Text = Field(default="float32", description="The numbers that the network reads.")
    arithmetic: Text = Field(default="float32", description="The coarsest floats that the network computes with.")
    ops: dict[Text, int] = Field(default_factory=dict, description="How often each operator occurs.")
    unsupported: tuple[Text, ...] = Field(default=(), description="What has no implicit form here: node and operator.")
    stripped_output: Text | None = Field(
        default=None, description="A last operator that analyses leave out, such as Softmax: it changes no ranking."
    )
    threshold: float | None = Field(
        default=None,
        description="Class 1 is where the one output is above it, class 0 elsewhere; null where the class is the "
        "largest output, or where nothing speaks of classes.",
    )

    @property
    def reads_whole_numbers(self) -> bool:
        """Whether inputs are whole numbers: uint8 and the like."""
        return self.input_type.removeprefix("u").startswith("int")


class Nonzeros(Part):
    """Nonzero entries of the four matrices in x = phi(A x + B u + b), y = C x + D u + d."""

    A: Count = Field(description="State to state.")
    B: Count = Field(description="Input to state.")
    C: Count = Field(description="State to output.")
    D: Count = Field(description="Input to output.")


class BlockInfo(Part):
    """One block of states: the neurons of one activation."""

    name: Text = Field(description="The block's name, after its node in the model file.")
    op: Text = Field(description="The operator that the block comes from.")
    activation: Text = Field(description="The activation phi of the block.")
    shape: tuple[int, ...] = Field(description="Shape of the states for one sample.")
    size: Count = Field(description="Number of states.")


class BlockLink(Part):
    """One nonzero block of [[A, B], [C, D]]: who reads whom."""

    row: Count = Field(description="The block that reads, a position in `blocks`; their number stands for the outputs.")
    column: Count = Field(description="The block that is read, likewise; their number stands for the inputs.")
    nnz: Count = Field(description="Nonzero entries.")


class WellPosed(Part):
    """The proof that x = phi(A x + B u + b) has exactly one solution for every input."""

    proof: Text = Field(description="The argument: strictly triangular, norm below one, Perron-Frobenius, ...")
    value: float | None = Field(default=None, description="Its figure, such as the bound on the spectral radius.")
    witness: Text | None = Field(default=None, description="File of the witness that `verify` checks.")


class Rescaling(Part):
    """The largest row sum of |A| before and after positive diagonal scaling of the states."""

    before: NonNegative | None = Field(default=None, description="||A||_inf of the model as it was read.")
    after: NonNegative | None = Field(default=None, description="||A||_inf after scaling; null where none exists.")
    kappa: Positive | None = Field(default=None, description="The value that was asked for (--kappa).")


Optimisation = Literal["off", "basic", "all"]


class AgreementCheck(Part):
    """The implicit model compared with the original network."""

    n: Count = Field(description="Inputs that were compared.")
    reference: Text = Field(description="What ran the original network, such as onnxruntime 1.20.")
    max_rel_error: NonNegative = Field(description="Largest difference of an output, relative to max|y|.")
    argmax_agreement: Count = Field(description="Inputs where both predict the same class, ties within error included.")
    near_jumps: Count | None = Field(
        default=None,
        description="Of a network that jumps: inputs that come so near a threshold that float32 may take either side; "
        "their outputs are compared with what both sides lead to.",
    )
    optimisation: Optimisation | None = Field(
        default=None,
        description="Graph optimisations with which onnxruntime ran the original network, which is what is judged "
        "(--runtime-optimisation); null where it is not run by onnxruntime.",
    )
    optimised_apart: NonNegative | None = Field(
        default=None,
        description="How far outputs of onnxruntime with all and with no graph optimisations lie apart, relative to "
        "max|y|; null where they were not compared.",
    )


class EquilibriumCheck(Part):
    """How well the states of a cyclic model are computed: x against phi(A x + B u + b)."""

    n: Count = Field(description="Inputs that were tried.")
    iterations: Count = Field(description="Steps that the slowest of them took.")
    residual: NonNegative = Field(description="Largest entry of |x - phi(A x + B u + b)|.")


class Conversion(Part):
    """The implicit model that the analyses speak of."""

    n_states: Count = Field(description="Length of the state x.")
    n_inputs: Count = Field(description="Length p of the input u.")
    n_outputs: Count = Field(description="Length q of the output y.")
    nnz: Nonzeros = Field(description="Nonzero entries of A, B, C, D.")
    blocks: tuple[BlockInfo, ...] = Field(default=(), description="Blocks of states, in order of evaluation.")
    links: tuple[BlockLink, ...] = Field(default=(), description="Which block of A, B, C, D has nonzeros, row by row.")
    structure: Literal["strictly block triangular", "cyclic"] = Field(description="The shape of A.")
    well_posed: WellPosed = Field(description="Why the model has exactly one state for every input.")
    norm_inf_A: Rescaling = Field(description="||A||_inf before and after scaling.")
    check: AgreementCheck | None = Field(default=None, description="Agreement with the original network.")
    equilibrium: EquilibriumCheck | None = Field(
        default=None, description="For a cyclic model: how well its states are computed."
    )
    estimated_mb: NonNegative | None = Field(
        default=None, description="Memory that A, B, C, D would take as sparse matrices, in MB (10^6 bytes)."
    )
    seconds: Seconds | None = Field(default=None, description="Time that the conversion took.")
    peak_mb: NonNegative | None = Field(default=None, description="Peak memory of the process, in MB (10^6 bytes).")


class PreprocessingInfo(Part):
    """The network's own input is (u * scale - mean) / std, u in data units."""

    scale: float = Field(default=1.0, description="Factor on the user's numbers.")
    mean: tuple[float, ...] = Field(default=(), description="One number, one per channel, or one per input.")
    std: tuple[Positive, ...] = Field(default=(), description="One number, one per channel, or one per input.")


class ShardInfo(Part):
    """Which part of an audit a report is of (--shard); `merge` puts them together."""

    number: int = Field(ge=1, description="From 1: parts follow one another in the order of the samples.")
    of: int = Field(ge=1, description="How many parts there are.")
    n: Count = Field(description="Number of samples of all parts.")
    numbers_sha256: Sha256 = Field(description="`data.numbers_sha256` of all parts together.")

    @model_validator(mode="after")
    def _check_number(self) -> Self:
        if self.number > self.of:
            raise ValueError(f"there is no shard {self.number} of {self.of}")
        return self


class DataInfo(Part):
    """The samples that were audited."""

    source: Text = Field(description="The file, as it was given.")
    sha256: Sha256 = Field(description="SHA-256 of the file.")
    n: Count = Field(description="Number of samples that were audited.")
    indices: tuple[Count, ...] = Field(default=(), description="Their positions in the file.")
    numbers_sha256: Sha256 | None = Field(
        default=None, description="SHA-256 of the samples' numbers as the model reads them, whatever file they are in."
    )
    layout: Literal["native", "nchw", "nhwc", "flat"] = Field(default="native", description="Order of the data's axes.")
    preprocessing: PreprocessingInfo = Field(
        default_factory=PreprocessingInfo, description="From data units to the network's own input."
    )
    bounds: tuple[float, float] | None = Field(default=None, description="Valid range of the data, in data units.")
    shard: ShardInfo | None = Field(
        default=None, description="Where these are the samples of one part of an audit: which; null for all of it."
    )


class EpsPoint(Part):
    """One perturbation radius."""

    value: NonNegative = Field(description="The radius in data units; 0 only where inputs are free.")
    text: Text = Field(description="How it was written: 8/255, 0.03.")


class ThreatModel(Part):
    """How an input may be perturbed."""

    set: Literal["box", "card", "ball", "perturbed"] = Field(
        description="Every input at once (box), at most k of them (card), all together in another norm than linf "
        "(ball), or what a perturbation makes of the sample."
    )
    norm: NormName = Field(
        default="linf", description="The norm that eps bounds: of the change, all inputs together; linf of each."
    )
    eps: tuple[EpsPoint, ...] = Field(description="The radii, in data units.")
    k: int | None = Field(default=None, ge=1, description="For `card`: how many inputs may change.")
    sigma: Text | None = Field(
        default=None, description="File of per-input radii: an input moves by at most eps times its own."
    )
    sigma_sha256: Sha256 | None = Field(default=None, description="SHA-256 of the radii in it.")
    arithmetic: ArithmeticName = Field(
        default="real",
        description="What `certified` speaks of: the network in real numbers, without rounding, or as runtimes compute "
        "it in the floats that it computes in, whatever they round.",
    )
    target: int | None = Field(
        default=None,
        ge=0,
        description="Only this class counts as an attack's success; null stands for any but the label.",
    )
    clip: tuple[float, float] | None = Field(default=None, description="Perturbed inputs stay in this range.")
    free: tuple[Count, ...] = Field(
        default=(), description="Inputs, by number, that move through the whole of `clip`, whatever eps is."
    )
    perturbation: Text | None = Field(
        default=None,
        description="For `perturbed`: what changes and how far, eps times: brightness=-0.1:0.1. Inputs saturate at the "
        "ends of `clip`.",
    )
    directions: Text | None = Field(default=None, description="For `perturbed`: file of directions to move along.")
    directions_sha256: Sha256 | None = Field(default=None, description="SHA-256 of the numbers in it.")
    picture: tuple[Count, ...] = Field(
        default=(), description="For `perturbed`: shape of an input as a picture, where the perturbation depends on it."
    )

    features: Text | None = Field(
        default=None,
        description="File of features: whole numbers and categories move as such, and valid rows alone count.",
    )
    features_sha256: Sha256 | None = Field(default=None, description="SHA-256 of it.")
    fair: bool = Field(
        default=False,
        description="Nothing moves but the protected features of that file, each to all its valid values.",
    )

    @model_validator(mode="after")
    def _check_free(self) -> Self:
        if self.fair and self.features is None:
            raise ValueError("protected features are those of a file, and none is named")
        if self.free and self.clip is None and self.features is None:
            raise ValueError("inputs that are free move within clip or the ranges of features, and there is neither")
        if not self.free and not self.fair and any(point.value == 0 for point in self.eps):
            raise ValueError("eps 0 leaves nothing to move, as no input is free")
        return self

    @model_validator(mode="after")
    def _check_perturbation(self) -> Self:
        named = self.perturbation is not None or self.directions is not None
        if named != (self.set == "perturbed") or (self.directions is None) != (self.directions_sha256 is None):
            raise ValueError("a set `perturbed`, and no other, has a perturbation or hashed directions")
        if (self.norm != "linf") != (self.set == "ball"):
            raise ValueError("a set `ball`, and no other, is one of another norm than linf")
        if (named or self.set == "ball") and (self.k is not None or self.free):
            raise ValueError("no k or free inputs stand beside a perturbation or a ball")
        if named and self.sigma is not None:
            raise ValueError("no sigma stands beside a perturbation")
        return self
