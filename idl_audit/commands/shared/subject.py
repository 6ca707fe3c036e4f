"""The subject of an audit: a model file, its implicit model, the original network, and whether the two agree."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from idl_audit.commands.options.reading import ModelOptions, NamedFile, SearchedModel
from idl_audit.commands.shared.agreement import Compared, check, input_type, tolerance
from idl_audit.commands.shared.class_output import as_scores
from idl_audit.commands.shared.no_form import NoForm, in_units, measured, slopes_by_torch, without_form
from idl_audit.commands.shared.points import random_inputs, readable
from idl_audit.commands.shared.runtime import Judged, judged
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.sample_files import read_sample_file
from idl_audit.data.samples import Part
from idl_audit.graph.files import ReadFile, hashed, refuse_changed
from idl_audit.graph.fingerprint import array_sha256
from idl_audit.graph.inputs import WHOLE, InputChoice, check_chosen
from idl_audit.graph.ir import Graph, live_inputs, operator_of
from idl_audit.graph.original import OriginalNetwork, chosen_output, onnx2torch_network
from idl_audit.graph.reader import read_graph, sniff
from idl_audit.graph.torch_options import TorchOptions
from idl_audit.graph.torch_reader import TORCH_KINDS, network_of, read_torch
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.input_units import in_data_units
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.storage import StoredModel, load_model
from idl_audit.implicit.threshold import Threshold
from idl_audit.implicit.unfused import unfused
from idl_audit.implicit.walk import BYTES_PER_ENTRY
from idl_audit.implicit.wellposed import Monotone
from idl_audit.proof.exact.point import ExactNetwork
from idl_audit.report.schema import (
    AgreementCheck,
    BlockInfo,
    BlockLink,
    Conversion,
    EquilibriumCheck,
    FixedInfo,
    InputInfo,
    ModelInfo,
    Nonzeros,
    Rescaling,
    WellPosed,
)
from idl_audit.values import products, threads
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray
from idl_audit.values.errors import DataError, MemoryLimitError, ModelFileError, OptionError, UnsupportedModelError
from idl_audit.values.input_sets import InputSet
from idl_audit.values.network import Network, Pulled

if TYPE_CHECKING:
    from idl_audit.graph.torch_reader import Module, Tensor

Step = TypeVar("Step")


@dataclass(frozen=True)
class SecondOpinion:
    """Another implementation of the original network, by its name; or why it is not asked."""

    network: tuple[str, Network] | None
    why_not: str = ""


@dataclass(frozen=True)
class Subject:
    """A model file with everything that audits ask of it."""

    path: Path
    form: ImplicitModel | NoForm
    """The implicit model, or why there is none."""
    original: OriginalNetwork
    info: ModelInfo
    seconds: float
    """Time that reading and converting took."""
    graph: Graph | None
    """The network's graph; None where the file is an implicit model itself."""
    output_name: str | None = None
    files: tuple[ReadFile, ...] = ()
    """All that it was read from."""
    threshold: Threshold | None = None
    """What makes two classes of a network with one output (`commands.shared.classifier`); None: read as it is."""
    network_itself: Subject | None = None
    """Where there is a threshold: the network with its one output."""
    judged: Judged | None = None
    """Of a network that onnxruntime runs: in which form."""

    def check_unchanged(self) -> None:
        """Refuse what was written over since: onnxruntime maps large weights beside a model, and sees every change.

        Raises:
            ModelFileError: with the file's name.
        """
        refuse_changed(self.files)

    @property
    def model(self) -> ImplicitModel:
        """The implicit model, which reads what the network reads: preprocessing is not part of it.

        Raises:
            UnsupportedModelError: where the network has none; so does MemoryLimitError.
        """
        if isinstance(self.form, NoForm):
            raise self.form.error
        return self.form

    @property
    def no_form(self) -> NoForm | None:
        """Why there is no implicit model; None where there is one."""
        return self.form if isinstance(self.form, NoForm) else None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.form.input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output of one sample."""
        return self.form.output_shape

    @property
    def n_inputs(self) -> int:
        """The number p of inputs."""
        return self.form.n_inputs

    @property
    def n_outputs(self) -> int:
        """The number q of outputs."""
        return self.form.n_outputs

    @property
    def parts(self) -> tuple[Part, ...]:
        """The network's own inputs, with their shapes for one sample; none where the file is a plain implicit model."""
        if self.form.input_parts or self.graph is None:
            return tuple((part.name, part.shape) for part in self.form.input_parts)
        return tuple((value.name, self.input_shape) for value in live_inputs(self.graph, self.output or ""))

    @property
    def output(self) -> str | None:
        """Name of the output that is audited; None where the file is an implicit model, whose output has no name."""
        return None if self.graph is None else chosen_output(self.path, self.graph, self.output_name)

    @property
    def point_type(self) -> np.dtype[Any]:
        """The type of the network's input; points are float32 numbers where it is finer."""
        itself = self.network_itself or self
        if itself.graph is None and self.info.input_type in WHOLE:  # converted of a network that reads these
            return np.dtype(self.info.input_type)
        return input_type(itself.graph, itself.output_name)

    def random_inputs(self, *, seed: int = 0) -> FloatArray:
        """Return inputs for a check, as `random_inputs` makes them, (20, p)."""
        return random_inputs(self.n_inputs, seed=seed, kind=self.point_type)

    def readable(self, inputs: InputSet, preprocessing: Preprocessing) -> InputSet:
        """Return the same set, whose points are those that the network reads as numbers inside it."""
        return readable(inputs, self.point_type, preprocessing, self.input_shape)

    def in_data_units(self, preprocessing: Preprocessing) -> ImplicitModel:
        """Return the implicit model that reads the user's numbers."""
        return in_data_units(self.model, *preprocessing.affine(self.input_shape))

    def network(self, preprocessing: Preprocessing) -> Network:
        """Return the original network as a function of the user's numbers, float32 (m, p) -> (m, q)."""
        return _in_data_units(self.original, preprocessing, self.input_shape)

    def exact(self, preprocessing: Preprocessing) -> ExactNetwork:
        """Return the network in exact arithmetic, as a function of the user's numbers."""
        shape, threshold = self.input_shape, self.threshold
        return ExactNetwork(
            self.in_data_units(preprocessing),
            self._unfused,
            read=tuple if preprocessing.is_identity else lambda point: preprocessing.exactly(point, shape),
            scores=tuple if threshold is None else threshold.exact_scores,
        )

    def _unfused(self) -> ImplicitModel:
        """Return the model with the file's own coefficients, of the network with its own outputs."""
        if self.graph is None:
            return (self.network_itself or self).model
        return unfused(self.graph, output=self.output_name)

    def second_opinion(self, preprocessing: Preprocessing, inputs: FloatArray) -> SecondOpinion | None:
        """Return another implementation of the original network, or why it is not asked; None where there is none.

        Args:
            preprocessing: what the user's numbers go through.
            inputs: points in the user's numbers, (m, p), at which it must give what the original network gives.
        """
        if self.graph is None or self.graph.provenance.format != "onnx":
            return None
        points = np.asarray(inputs, np.float32)
        try:
            second = onnx2torch_network(self.path, self.graph, output=self.output_name)
            theirs_read = second if self.no_form is not None else as_scores(second, self.model, self.path)
            judge = _in_data_units(theirs_read, preprocessing, self.input_shape)
            theirs, ours = self._read(judge(points)), self.network(preprocessing)(points)
        except UnsupportedModelError as error:
            return SecondOpinion(None, str(error))
        within = np.isfinite(ours).all(axis=1)
        ours, theirs = ours[within], theirs[within]
        size = max(float(np.abs(ours).max(initial=0.0)), float(np.finfo(np.float32).tiny))
        differ = float(np.abs(theirs - ours).max(initial=0.0)) / size
        if not differ <= tolerance(self.graph):  # version conversion changes some functions
            why = f"as {second.name} converts it, the network differs from {self.original.name} by {differ:.1e}"
            return SecondOpinion(None, f"{why} of max|y|")
        return SecondOpinion((second.name, lambda points: self._read(judge(points))))

    def pulled(self, preprocessing: Preprocessing) -> Pulled | None:
        """Return slopes of `network` by torch; None where torch has no copy of it."""
        if self.graph is None:
            return None
        own = slopes_by_torch(self.path, self.graph, self.output_name, self.form, threshold=self.threshold is not None)
        return None if own is None else in_units(own, preprocessing, self.input_shape)

    def _read(self, outputs: FloatArray) -> FloatArray:
        """Return the outputs as the audit reads them: scores of two classes where there is a threshold."""
        return outputs if self.threshold is None else self.threshold.scores(outputs)


def _in_data_units(network: OriginalNetwork, preprocessing: Preprocessing, shape: tuple[int, ...]) -> Network:
    if preprocessing.is_identity:
        return network
    return lambda points: network(preprocessing.apply(points.astype(np.float64), shape))


@dataclass(frozen=True)
class _ImplicitOriginal:
    """A converted model is its own original: nothing else is in the file."""

    model: ImplicitModel
    name: str = "the implicit model itself"

    def __call__(self, inputs: Float32Array) -> FloatArray:
        return self.model(inputs.astype(np.float64))


def _search_on(name: str) -> None:
    """Let searches compute there; on this machine's processor nothing of them is loaded, as checks need none."""
    if name in ("auto", "cpu") and products.place() == "cpu":
        return
    from idl_audit.search import device

    device.use(name)


def open_subject(
    path: Path, options: ModelOptions | None = None, *, whole: bool = False, may_lack_form: bool = False
) -> Subject:
    """Read a model file (ONNX, PyTorch, or a converted .npz) and build its implicit model.

    Args:
        path: the file.
        options: how to read it.
        whole: keep a last softmax, where the values of outputs count and not their order alone.
        may_lack_form: where the network has no implicit form and can be run, return it with `NoForm`.

    Raises:
        ModelFileError: where the file cannot be read, or must not be.
        UnsupportedModelError: where parts of the network have no implicit form; all of them are named.
        MemoryLimitError: where a matrix would exceed `max_bytes`.
    """
    start = time.monotonic()
    options = options or ModelOptions()
    threads.use(options.threads)
    _search_on(options.device if isinstance(options, SearchedModel) else "cpu")
    kind = sniff(path)
    if kind == "npz":
        refuse_input_options(path, options)
        _refuse_onnx_options(path, options)
        return _open_implicit(path, start)
    chosen = chosen_inputs(options)
    chosen_form: Judged | None = None
    if kind in TORCH_KINDS:
        _refuse_onnx_options(path, options)
        network = read_torch(path, kind, options.torch, chosen=chosen, output=options.output_name)
        graph, original = network.graph, network.original
        form = _form(path, graph, options, whole=whole, may_lack=may_lack_form)
    else:
        _refuse_torch_options(path, options.torch)
        graph = named(path, lambda: read_graph(path, chosen=chosen, whole=False))
        form = _form(path, graph, options, whole=whole, may_lack=may_lack_form)
        points = random_inputs(form.n_inputs, n=COMPARED, kind=input_type(graph, options.output_name))
        chosen_form = judged(path, graph, options, points, allowed=tolerance(graph))
        original = chosen_form.network
    files = graph.provenance.files
    refuse_changed(files)  # the network was read twice: by us, and by what runs it
    model = None if isinstance(form, NoForm) else form
    if isinstance(form, NoForm):
        form = measured(path, form, original)
    info = describe_model(path, graph, model, options)
    seconds = time.monotonic() - start
    original = original if model is None else as_scores(original, model, path)
    if isinstance(form, NoForm):
        info = info.model_copy(update={"unsupported": form.problems, "n_outputs": form.n_outputs})
    return Subject(path, form, original, info, seconds, graph, options.output_name, files, judged=chosen_form)


COMPARED: Final = 10
"""Inputs on which the network's forms are compared when it is opened."""


def chosen_inputs(options: ModelOptions) -> InputChoice:
    """Return which inputs move and the numbers of those that do not, read from their files.

    Raises:
        DataError: where such a file cannot be read, or holds no numbers for the input.
        OptionError: where an input is fixed twice.
    """
    fixed: dict[str, AnyArray] = {}
    for one in options.fix:
        if one.name in fixed:
            raise OptionError(f"--fix {one.name} is given twice; hold it fixed at one file's numbers")
        fixed[one.name] = _numbers_of(one)
    return InputChoice(options.input_name or (), fixed)


def _numbers_of(fixed: NamedFile) -> AnyArray:
    """Return the array of the file that has the input's name, or its only one."""
    read = read_sample_file(fixed.path, ((fixed.name, _ONLY),))
    of_others = fixed.name not in read.names and _ONLY in read.names and len(read.names) > 1
    if read.arrays[0] is None or of_others:
        raise DataError(
            f"--fix {fixed.name}: {fixed.path} has no array of this name; save it with numpy.save(path, array)"
        )
    return read.arrays[0]


_ONLY: Final = "inputs"
"""The name of the only array of a file that says no other."""


def refuse_input_options(path: Path, given: ModelOptions) -> None:
    """Refuse what is said of a network's inputs where there is an implicit model, whose input is one vector."""
    for option, value in (("--input-name", given.input_name), ("--fix", given.fix)):
        if value:
            raise OptionError(
                f"{option} belongs to a network's file, and {path} is an implicit model, whose input is one vector; "
                "give it to convert"
            )


def _refuse_torch_options(path: Path, given: TorchOptions) -> None:
    for option, value in (("--arch", given.arch), ("--input-shape", given.input_shape)):
        if value is not None:
            raise OptionError(f"{option} belongs to PyTorch files, and {path} says itself what it is; leave it out")


def _refuse_onnx_options(path: Path, given: ModelOptions) -> None:
    if given.runtime_optimisation != "auto":
        raise OptionError(
            f"--runtime-optimisation belongs to ONNX files, and {path} is not run by onnxruntime; leave it out"
        )


def _build(path: Path, graph: Graph, options: ModelOptions, *, whole: bool = False) -> ImplicitModel:
    check_chosen(graph, options.input_name or (), chosen_output(path, graph, options.output_name), path)
    output, most = options.output_name, options.max_bytes
    return named(path, lambda: build_implicit(graph, output=output, max_bytes=most, whole=whole))


def _form(path: Path, graph: Graph, options: ModelOptions, *, whole: bool, may_lack: bool) -> ImplicitModel | NoForm:
    """Return the implicit model; where it is refused and the network may be run all the same, what stands for it."""
    try:
        return _build(path, graph, options, whole=whole)
    except (UnsupportedModelError, MemoryLimitError) as error:
        found = without_form(path, graph, options.output_name, error) if may_lack else None
        if found is None:
            raise
        return found


def named(path: Path, step: Callable[[], Step]) -> Step:
    """Run a step; what it refuses is told with the file's name in front."""
    try:
        return step()
    except UnsupportedModelError as error:
        if str(error).startswith(str(path)):
            raise
        raise UnsupportedModelError([f"{path}: {error.problems[0]}", *error.problems[1:]]) from error


def describe_model(
    path: Path, graph: Graph, model: ImplicitModel | None, reading: ModelOptions | None = None
) -> ModelInfo:
    """Return the report's section on the model file; `model` None stands for a network without an implicit form."""
    read = reading or ModelOptions()
    files = graph.provenance.files
    moving = live_inputs(graph, read.output_name or graph.outputs[0].name)
    shapes = [tuple(size if isinstance(size, int) else 1 for size in value.shape or ()) for value in moving]
    inputs = tuple(InputInfo(name=value.name, shape=shape) for value, shape in zip(moving, shapes, strict=True))
    return ModelInfo(
        path=str(path),
        format=graph.provenance.format,
        sha256=graph.provenance.sha256,
        file_sha256=files[0].sha256 if files else None,
        external_files=graph.provenance.external_files,
        external_sha256=graph.provenance.external_sha256,
        arch=read.torch.arch,
        output_name=read.output_name if len(graph.outputs) > 1 else None,
        input_shape=model.input_shape if model is not None else shapes[0] if len(shapes) == 1 else (),
        inputs=inputs if len(inputs) > 1 else (),
        fixed_inputs=tuple(
            FixedInfo(name=value.name, sha256=array_sha256(graph.constants[value.name], value.name))
            for value in graph.fixed
        ),
        n_outputs=0 if model is None else model.n_outputs,
        n_parameters=graph.n_parameters,
        opset=graph.opset,
        producer=graph.provenance.producer,
        input_type=input_type(graph, read.output_name).name,
        arithmetic=graph.arithmetic,
        ops=dict(sorted(Counter(operator_of(node) for node in graph.nodes).items())),
        stripped_output=(model.stripped_output or None) if model is not None else None,
    )


def _open_implicit(path: Path, start: float) -> Subject:
    file = hashed(path)
    stored: StoredModel = load_model(path)
    refuse_changed([file])
    try:
        own = {"path": str(path), "format": "implicit", "sha256": file.sha256, "file_sha256": file.sha256}
        parts = {"inputs": [{"name": part.name, "shape": part.shape} for part in stored.model.input_parts]}
        info = ModelInfo.model_validate({**stored.origin, **own, **parts, **_OF_THE_NETWORK_BEFORE})
    except ValueError as error:
        raise ModelFileError(f"{path} does not say where it came from; make it anew with convert") from error
    original = _ImplicitOriginal(stored.model)
    return Subject(path, stored.model, original, info, time.monotonic() - start, None, files=(file,))


_OF_THE_NETWORK_BEFORE: Final[Mapping[str, tuple[()] | None]] = MappingProxyType(
    {
        "external_files": (),
        "external_sha256": (),
        "arch": None,
        "output_name": None,
        "threshold": None,
        "fixed_inputs": (),
    }
)
"""What a converted model says of the file that it was made from, and what is not so of its own."""


def load(path: str | Path, options: ModelOptions | None = None) -> ImplicitModel:
    """Return the implicit model of a network file, checked against the original network on 20 random inputs.

    Raises:
        InvalidInputError: where the file cannot be read or has parts without an implicit form.
        AgreementError: where the implicit model is not the network.
    """
    subject = open_subject(Path(path), options)
    check_agreement(subject, subject.random_inputs())
    return subject.model


def open_module(module: Module, example_input: Tensor | Sequence[Tensor]) -> Subject:
    """Build the implicit model of a torch module, unchecked. Raises UnsupportedModelError as `from_torch` does.

    Args:
        module: the network; it is put into evaluation mode.
        example_input: an input of the network with its batch axis, or one for each of its arguments.
    """
    network = network_of(module, example_input)
    path = Path(type(module).__name__)
    model = _build(path, network.graph, ModelOptions())
    info = describe_model(path, network.graph, model)
    return Subject(path, model, as_scores(network.original, model, path), info, 0.0, network.graph)


def from_torch(module: Module, example_input: Tensor | Sequence[Tensor]) -> ImplicitModel:
    """Return the implicit model of a torch module, checked against the module on 20 random inputs.

    Args:
        module: the network; it is put into evaluation mode.
        example_input: an input of the network with its batch axis, or one for each of its arguments.

    Raises:
        UnsupportedModelError: where no exporter turns it into ONNX, or parts of it have no implicit form.
        AgreementError: where the implicit model is not the network.
    """
    subject = open_module(module, example_input)
    check_agreement(subject, random_inputs(subject.model.n_inputs))
    return subject.model


CHECKED_SAMPLES: Final = 100
"""The agreement check of an audit runs on the first so many samples."""


def check_agreement(subject: Subject, inputs: FloatArray) -> AgreementCheck:
    """Compare the implicit model with the original network on inputs in the network's own units, shape (n, p).

    Raises:
        AgreementError: where an output differs by more than `agreement.tolerance` of max|y|, or another class wins
            although the two best outputs are not that close.
        UnsupportedModelError: where that is so because of the network's own arithmetic.
    """
    return check(_compared(subject), inputs)


def _compared(subject: Subject) -> Compared:
    itself = subject.network_itself or subject
    scores = None if subject.threshold is None else subject.threshold.scores
    form = itself.judged or subject.judged
    return Compared(itself.path, itself.model, itself.original, itself.graph, itself.output_name, scores, form)


def describe_conversion(
    model: ImplicitModel, rescaled: ImplicitModel | None, check: AgreementCheck | None, seconds: float
) -> Conversion:
    """Return the report's section on the implicit model; `rescaled` None leaves the norms of A out."""
    scaling = rescaled.scaling if rescaled is not None else model.scaling
    return Conversion(
        n_states=model.n_states,
        n_inputs=model.n_inputs,
        n_outputs=model.n_outputs,
        nnz=_nonzeros(model),
        blocks=tuple(
            BlockInfo(name=b.name, op=b.op, activation=b.activation.name, shape=b.shape, size=b.size)
            for b in model.blocks[::-1]
        ),
        links=tuple(_links(model)),
        structure="strictly block triangular" if model.is_feed_forward else "cyclic",
        well_posed=describe_proof(model),
        norm_inf_A=Rescaling(
            before=None if scaling is None else scaling.norm_before,
            after=None if scaling is None else scaling.norm_after,
            kappa=None if scaling is None else scaling.kappa,
        ),
        check=check,
        equilibrium=None if check is None or model.is_feed_forward else _equilibria(model),
        estimated_mb=sum(one.nnz for row in (*model.rows, model.output) for one in row.maps) * BYTES_PER_ENTRY / 1e6,
        seconds=seconds,
        peak_mb=peak_megabytes(),
    )


def _links(model: ImplicitModel) -> Iterator[BlockLink]:
    """Yield the nonzero blocks of [[A, B], [C, D]], blocks in the report's order: the earliest first."""
    n = len(model.blocks)
    for place, row in enumerate((*model.rows[::-1], model.output)):
        for block in sorted(row.states, reverse=True):
            yield BlockLink(row=place, column=n - 1 - block, nnz=row.states[block].nonzeros)
        if row.input is not None:
            yield BlockLink(row=place, column=n, nnz=row.input.nonzeros)


def _equilibria(model: ImplicitModel) -> EquilibriumCheck | None:
    """Return how well equilibria are solved for; None where nothing proves that there are any, and none was found."""
    inputs = random_inputs(model.n_inputs)
    try:
        found = model.solve(inputs)
    except UnsupportedModelError:
        if model.is_well_posed:
            raise
        return None
    return EquilibriumCheck(n=len(inputs), iterations=found.iterations, residual=found.residual)


def describe_proof(model: ImplicitModel) -> WellPosed:
    """Return why the model has exactly one state for every input, loop by loop, or that nothing proves it."""
    if model.is_feed_forward:
        return WellPosed(proof="strictly block triangular: one pass over the blocks gives the only state")
    open_loops = [f"'{loop.block.name}'" for loop in model.loops.values() if loop.proof is None]
    if open_loops:
        return WellPosed(proof=f"none: no proof holds for the loop {', '.join(open_loops[:3])}; verdicts stay unknown")
    found = [loop.proof for loop in model.loops.values() if loop.proof is not None]
    texts = Counter(_PROOFS[proof.name] for proof in found)
    text = "; ".join(name if count == 1 else f"{name} ({count} loops)" for name, count in texts.items())
    kappas = [proof.kappa for proof in found if not isinstance(proof, Monotone)]
    if len(kappas) == len(found):
        return WellPosed(proof=text, value=max(kappas))
    return WellPosed(proof=text, value=min(p.least_eigenvalue for p in found if isinstance(p, Monotone)))


_PROOFS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "one state": "one state a loop: closed form",
        "PF": "PF: lambda_PF(Gamma |A|) < 1",
        "loop(diag)": "loop(diag): contraction with alpha = 1 / (1 - A_ii)",
        "loop(1)": "loop(1): contraction around the middle of the slopes",
        "centre-radius": "centre-radius: contraction around the middle of the slopes",
        "loop(alpha)": "loop(alpha): contraction after a change of variable",
        "norms": "norms: lambda_PF(N(A, gamma)) < 1, one norm a group of coupled states",
        "monotone": "monotone: diag(1/g) - (A + A^T)/2 is positive definite",
    }
)
"""What a proof of the ladder says, by its name."""


def _nonzeros(model: ImplicitModel) -> Nonzeros:
    return Nonzeros(
        A=sum(linear_map.nonzeros for row in model.rows for linear_map in row.states.values()),
        B=sum(row.input.nonzeros for row in model.rows if row.input is not None),
        C=sum(linear_map.nonzeros for linear_map in model.output.states.values()),
        D=0 if model.output.input is None else model.output.input.nonzeros,
    )


def peak_megabytes() -> float:
    """Return the peak memory of this process in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
