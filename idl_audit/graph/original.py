"""The original network, run as its users run it: the oracle that every other answer is checked against.

Elsewhere: reference implementation, replay.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from idl_audit.graph.folding import with_folded_constants
from idl_audit.graph.inputs import FLOATS, WHOLE, has_batch_axis, names_of, taken_apart, with_one_input
from idl_audit.graph.ir import Graph, Value, shown
from idl_audit.graph.onnx_writer import clean_model, with_hidden
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray
from idl_audit.values.box import check_whole, is_whole
from idl_audit.values.errors import DataError, OptionError, UnsupportedModelError

# Of max|y|: what another order of summation may change, and mixed samples exceed.
_SAME: Final[Mapping[str, float]] = MappingProxyType({"float16": 2.0**-8, "bfloat16": 2.0**-5})
_SAME_IN_FLOAT32: Final = 1e-5
_BATCH: Final = 256
_PREAMBLE: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?")
OPTIMISATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {"off": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "all": "ORT_ENABLE_ALL"}
)
"""How far onnxruntime may rewrite a graph before it runs it -> its own name for that; what it does unasked is `all`.

Off, every operator is run as it is written. Rewritten, weights behind a DequantizeLinear are multiplied by kernels that
round the other factor to 8 bits as well, two grids in a row become one that is neither, and Erf(x / 1.4142) is taken
for a part of GELU.
"""
_NUMBERS: Final = (*FLOATS, "bool", *WHOLE, "string")


class OriginalNetwork(Protocol):
    """A network as a function of rows: one row is one flattened sample, one flattened output."""

    @property
    def name(self) -> str:
        """What ran it, with its version: a report says so."""

    def __call__(self, inputs: Float32Array) -> FloatArray:
        """Return the outputs, shape (n, q), for inputs of shape (n, p)."""


@dataclass(frozen=True)
class InputForm:
    """The one input of a graph: its shape for a single sample, its type, and whether its leading axis is free.

    Of a network with several inputs it is the vector that stands for all of them.
    """

    shape: tuple[int, ...]
    dtype: npt.DTypeLike
    free_leading_axis: bool

    @property
    def size(self) -> int:
        """The number p of elements of one sample."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def fixed_batch(self) -> int:
        """The fixed leading size N > 1, which may count samples or be part of one; 0 where there is none."""
        return self.shape[0] if len(self.shape) > 1 and not self.free_leading_axis and self.shape[0] > 1 else 0


class _Batching(enum.Enum):
    """Whether several samples may go through the network at once."""

    UNTRIED = "untried"
    TRUSTED = "trusted"
    OFF = "off"


class BatchedNetwork:
    """Runs samples in batches where that gives what single samples give, and one by one otherwise.

    Some files bake the batch size into a Reshape and others mix samples, so a batch is believed only after its first
    and last sample came out the same alone.

    Where the file fixes the leading axis to N > 1, the caller says by the width of its rows what a sample is: the whole
    input, or one of N samples (`implicit.lowering.fixed_batch` decides). In the second case runs are filled up to N
    samples by repeating them, and "alone" is a batch of N copies, whose outputs must be the same.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        form: InputForm,
        run: Callable[[AnyArray], AnyArray],
        arithmetic: str = "float32",
    ) -> None:
        self._name = name
        self._same = _SAME.get(arithmetic, _SAME_IN_FLOAT32)
        self._path = path
        self._form = form
        self._run = run
        self._batching = _Batching.UNTRIED if form.free_leading_axis else _Batching.OFF
        self._fixed_batching = _Batching.UNTRIED

    @property
    def name(self) -> str:
        """What ran it, with its version."""
        return self._name

    def __call__(self, inputs: Float32Array) -> FloatArray:
        """Return the outputs, shape (n, q), for inputs of shape (n, p), or (n, p/N) for one of a fixed batch of N.

        Raises DataError for another p, or for fractions where the network reads whole numbers, and
        UnsupportedModelError where the network cannot be run, or does not treat the samples of a fixed batch alike and
        alone.
        """
        inputs = np.asarray(inputs)
        fixed = self._form.fixed_batch
        if fixed and inputs.ndim == 2 and inputs.shape[1] * fixed == self._form.size:
            return self._in_fixed_batches(self._typed(inputs))
        if inputs.ndim != 2 or inputs.shape[1] != self._form.size:
            raise DataError(
                f"{self._path}: the network takes rows of {self._form.size} numbers and the inputs have shape "
                f"{inputs.shape}; flatten each sample"
            )
        samples = self._typed(inputs)
        if not len(samples):
            return np.empty((0, len(self._single(np.zeros(self._form.size, self._form.dtype)))))
        return np.concatenate([self._rows(samples[at : at + _BATCH]) for at in range(0, len(samples), _BATCH)])

    def _typed(self, inputs: AnyArray) -> AnyArray:
        """Return numbers in the type that the network reads; of whole ones nothing is cut off."""
        kind = np.dtype(self._form.dtype)
        if is_whole(kind):
            check_whole(inputs, kind, f"{self._path}: an input")
        return inputs.astype(kind)

    def _in_fixed_batches(self, samples: AnyArray) -> FloatArray:
        fixed = self._form.fixed_batch
        if not len(samples):
            return np.empty((0, self._copies(np.zeros(samples.shape[1], samples.dtype)).size))
        found = []
        for at in range(0, len(samples), fixed):
            chunk = samples[at : at + fixed]
            rows = self._fixed(chunk[np.arange(fixed) % len(chunk)])[: len(chunk)]
            if self._fixed_batching is not _Batching.TRUSTED:
                self._trust(chunk, rows)
            found.append(rows)
        return np.concatenate(found)

    def _trust(self, samples: AnyArray, rows: FloatArray) -> None:
        """Compare the first and the last sample with batches of their copies."""
        for k in (0, -1):
            if not self._agree(rows[k], self._copies(samples[k])):
                raise self._unlike()
        if not np.array_equal(samples[0], samples[-1]):
            self._fixed_batching = _Batching.TRUSTED

    def _copies(self, sample: AnyArray) -> FloatArray:
        """Return the output of one sample: that of every place in a batch of its copies."""
        rows = self._fixed(np.broadcast_to(sample, (self._form.fixed_batch, len(sample))))
        if not self._agree(rows, np.broadcast_to(rows[0], rows.shape)):
            raise self._unlike()
        first: FloatArray = rows[0]
        return first

    def _fixed(self, samples: AnyArray) -> FloatArray:
        outputs = self._tried(samples, f"{len(samples)} samples")
        if outputs.ndim == 0 or outputs.shape[0] != len(samples):
            raise self._unlike()
        return outputs.reshape(len(samples), -1).astype(np.float64)

    def _agree(self, found: FloatArray, expected: FloatArray) -> bool:
        """Return whether two runs gave the same numbers, but for another order of summation."""
        return np.allclose(found, expected, rtol=0, atol=self._same * np.abs(expected).max(initial=0), equal_nan=True)

    def _unlike(self) -> UnsupportedModelError:
        return UnsupportedModelError(
            [
                f"{self._path}: the network takes {self._form.fixed_batch} samples at a time and its answer for one "
                "depends on the others or on its place among them; export it with batch size 1"
            ]
        )

    def _rows(self, samples: AnyArray) -> FloatArray:
        if len(samples) > 1 and self._batching is not _Batching.OFF:
            rows = self._batch(samples)
            if rows is not None and self._believes(samples, rows):
                return rows
            self._batching = _Batching.OFF
        return np.stack([self._single(sample) for sample in samples])

    def _believes(self, samples: AnyArray, rows: FloatArray) -> bool:
        """Compare the first and the last row with single runs, until two samples that differ have agreed."""
        if self._batching is _Batching.TRUSTED:
            return True
        alone = np.stack([self._single(samples[0]), self._single(samples[-1])])
        together = rows[[0, -1]]
        if alone.shape != together.shape:
            return False
        if not self._agree(together, alone):
            return False
        # Equal samples would hide that samples are mixed (a mean over the batch, say).
        if not np.array_equal(samples[0], samples[-1]):
            self._batching = _Batching.TRUSTED
        return True

    def _batch(self, samples: AnyArray) -> FloatArray | None:
        try:
            outputs = self._run(samples.reshape(len(samples), *self._form.shape[1:]))
        except Exception:  # whatever it was: one sample at a time is the answer, and fails with the reason if it must
            return None
        if outputs.ndim == 0 or outputs.shape[0] != len(samples):
            return None
        return outputs.reshape(len(samples), -1).astype(np.float64)

    def _single(self, sample: AnyArray) -> FloatArray:
        output: FloatArray = self._tried(sample, "one sample").reshape(-1).astype(np.float64)
        return output

    def _tried(self, numbers: AnyArray, what: str) -> AnyArray:
        try:
            return self._run(numbers.reshape(self._form.shape))
        except Exception as error:
            raise UnsupportedModelError(
                [f"{self._path}: {self._name} cannot run {what} of shape {self._form.shape}: {first_line(error)}"]
            ) from error


def onnxruntime_network(
    path: Path, graph: Graph, *, output: str | None = None, threads: int = 1, optimisation: str = "off"
) -> OriginalNetwork:
    """Return the network in the file `path`, run by onnxruntime.

    Args:
        path: the file.
        graph: what read_onnx made of it: it has refused what onnxruntime would follow (links, paths).
        output: names one of several outputs.
        threads: of one run.
        optimisation: a name of `OPTIMISATIONS`.

    Raises:
        UnsupportedModelError: where onnxruntime refuses the file.
        OptionError: for an unknown output.
    """
    name = chosen_output(path, graph, output)
    session, quiet, program = _session(path, str(path), threads, optimisation)
    idle = {value.name: _nothing(path, value) for value in graph.inputs}

    def run(batch: AnyArray) -> AnyArray:
        found = session.run([name], {**idle, **feeds(graph, name, batch)}, quiet)[0]
        return np.asarray([[one[key] for key in graph.maps[name]] for one in found] if name in graph.maps else found)

    return batched(program, path, graph, name, run)


def batched(program: str, path: Path, graph: Graph, output: str, run: Callable[[AnyArray], AnyArray]) -> BatchedNetwork:
    """Return a network of rows; `run` takes the arrays of `feeds` for one sample, or for several."""
    return BatchedNetwork(program, path, _form(path, with_one_input(graph, output).inputs[0]), run, graph.arithmetic)


def feeds(graph: Graph, output: str, batch: AnyArray) -> dict[str, AnyArray]:
    """Return what the file's inputs are given, by name: parts of the batch, and what is held fixed.

    Args:
        graph: with the file's own inputs.
        output: the output that is asked for.
        batch: the input of one sample or of several, or the input vector in the place of several inputs.
    """
    read = with_one_input(graph, output)
    given = taken_apart(batch, read.parts) if read.parts else {read.inputs[0].name: batch}
    n = len(batch) if has_batch_axis(read.inputs[0]) else 1
    return {**{value.name: _repeated(value, graph.constants[value.name], n) for value in graph.fixed}, **given}


def _repeated(value: Value, constant: AnyArray, n: int) -> AnyArray:
    """Return what the file is given for an input that is held fixed: n times where an axis counts samples."""
    given = constant.astype(value.dtype)
    return np.repeat(given, n, axis=0) if n > 1 and has_batch_axis(value) else given


@dataclass(frozen=True)
class Tensors:
    """A network whose inputs are handed over by name, and any of whose tensors can be asked for."""

    name: str
    """What runs it, with its version."""
    outputs: Mapping[str, str]
    """Output of the file -> the type of its elements, in the file's order."""
    types: Mapping[str, str]
    """The same of all tensors that can be asked for."""
    input_types: Mapping[str, str]
    """Input -> the type of its elements, in the file's order; those with an initializer included."""
    run: Callable[[Sequence[str], Mapping[str, AnyArray]], list[AnyArray]]
    """Return tensors by name, for arrays of all inputs."""


def onnxruntime_tensors(path: Path, *, hidden: Sequence[str] = (), threads: int = 1) -> Tensors:
    """Return the network in a file that `read_onnx` has read, run by onnxruntime as it stands.

    Args:
        path: the file.
        hidden: tensors that can be asked for beside the outputs.
        threads: for one run.

    Raises:
        UnsupportedModelError: where onnxruntime refuses the file, and whenever it cannot run it.
    """
    model, own = with_hidden(path, hidden) if hidden else (str(path), None)
    session, quiet, program = _session(path, model, threads)
    inputs = [*session.get_inputs(), *session.get_overridable_initializers()]
    types = {value.name: _element(value.type) for value in session.get_outputs()}

    def run(names: Sequence[str], given: Mapping[str, AnyArray]) -> list[AnyArray]:
        try:
            return [np.asarray(found) for found in session.run(list(names), dict(given), quiet)]
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise UnsupportedModelError([f"{path}: {program} cannot run it: {first_line(error)}"]) from error

    return Tensors(
        program,
        MappingProxyType({name: types[name] for name in (types if own is None else own)}),
        MappingProxyType(types),
        MappingProxyType({value.name: _element(value.type) for value in inputs}),
        run,
    )


def _element(text: str) -> str:
    """Return the name of an element type that onnxruntime writes as tensor(float)."""
    name = text.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def precise_network(path: Path, graph: Graph, *, output: str | None = None, double: bool = False) -> OriginalNetwork:
    """Return a copy of the network that computes in float32 where the file uses 16 bits or, with `double`, in float64.

    It tells a wrong reading of a file from the rounding of its own arithmetic. onnxruntime runs it or, where that has
    no such kernels, torch. Raises UnsupportedModelError where neither can.
    """
    name = chosen_output(path, graph, output)
    graph = with_folded_constants(graph)  # what 16 bits round of a weight is part of the network
    graph = with_one_input(graph, name)
    form = _form(path, graph.inputs[0])
    if not is_whole(np.dtype(form.dtype)):
        form = replace(form, dtype=np.dtype(np.float64 if double else np.float32))
    try:
        session, quiet, program = _session(path, _serialized(path, graph, name, double=double), 1)
    except UnsupportedModelError:
        if not double:
            raise
        from idl_audit.graph.torch_copy import torch_function  # imports torch: seconds

        run = torch_function(path, graph, name, double=True)
        return BatchedNetwork(f"onnx2torch {metadata.version('onnx2torch')} in float64", path, form, run)
    entry = session.get_inputs()[0].name

    def run_copy(batch: AnyArray) -> AnyArray:
        return np.asarray(session.run(None, {entry: batch}, quiet)[0])

    return BatchedNetwork(f"{program} in {np.dtype(form.dtype).name}", path, form, run_copy)


def _serialized(path: Path, graph: Graph, output: str, *, double: bool) -> bytes:
    try:
        return bytes(clean_model(graph, output, double=double).SerializeToString())
    except ValueError as error:  # protobuf holds 2 GiB
        raise UnsupportedModelError([f"{path}: a copy of the model is too large: {first_line(error)}"]) from error


def _session(path: Path, model: str | bytes, threads: int, optimisation: str = "off") -> tuple[Any, Any, str]:
    """Return a session of onnxruntime with its options for a quiet run, and what to call it."""
    import onnxruntime  # 0.2 s and 100 MB

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it says of a session that it cannot make is in our own error
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, OPTIMISATIONS[optimisation])
    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4  # a failing batch is expected, and a failing sample is told by our own error
    onnxruntime.disable_telemetry_events()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        why = first_line(error)
        if "find an implementation" in why:
            why += "; export it in float32, or in an older operator set"
        if optimisation != "off" and "/optimizer/" in why:
            why = f"its graph optimisations fail ({why}); --runtime-optimisation off runs the network as it is"
        raise UnsupportedModelError(
            [f"{path}: onnxruntime {onnxruntime.__version__} refuses the model: {why}"]
        ) from error
    return session, quiet, f"onnxruntime {onnxruntime.__version__}"


def _nothing(path: Path, value: Value) -> AnyArray:
    """Return zeros for an input that the output does not depend on, and that onnxruntime asks for all the same."""
    if value.dtype not in _NUMBERS:
        raise UnsupportedModelError(
            [f"{path}: the input {shown(value.name)}, which nothing reads, holds {value.dtype}; export without it"]
        )
    shape = tuple(size if isinstance(size, int) else 1 for size in value.shape or ())
    return np.full(shape, "", object) if value.dtype == "string" else np.zeros(shape, value.dtype)


def onnx2torch_network(path: Path, graph: Graph, *, output: str | None = None) -> OriginalNetwork:
    """Return the same network, run by onnx2torch and torch: a second, independent opinion.

    It is handed a copy without the file's names, made from `graph`. Raises UnsupportedModelError where onnx2torch can
    convert the model in no operator set version, which is so for a few in a hundred.
    """
    try:
        from idl_audit.graph.torch_copy import torch_function  # imports torch: seconds
    except ModuleNotFoundError as error:
        raise UnsupportedModelError([f"{path}: torch, which would run its copy, is not installed"]) from error

    name = chosen_output(path, graph, output)
    run = torch_function(path, graph, name)
    form = _widened(_form(path, with_one_input(graph, name).inputs[0]))
    return BatchedNetwork(f"onnx2torch {metadata.version('onnx2torch')}", path, form, run)


def onnx2torch_slopes(
    path: Path, graph: Graph, *, output: str | None = None
) -> Callable[[FloatArray, FloatArray], FloatArray]:
    """Return the function of rows (u, w) -> d(w . y)/du, (m, p), (m, q) -> (m, p), by the copy of `onnx2torch_network`.

    Raises as `onnx2torch_network` does, and UnsupportedModelError where an operator of it has no slope.
    """
    try:
        from idl_audit.graph.torch_copy import torch_slopes  # imports torch: seconds
    except ModuleNotFoundError as error:
        raise UnsupportedModelError([f"{path}: torch, which would run its copy, is not installed"]) from error

    name = chosen_output(path, graph, output)
    pulled, form = torch_slopes(path, graph, name), _form(path, with_one_input(graph, name).inputs[0])

    def slopes(points: FloatArray, weights: FloatArray) -> FloatArray:
        rows = [pulled(u.reshape(form.shape), w) for u, w in zip(points, weights, strict=True)]
        return np.asarray(rows, np.float64).reshape(points.shape)

    return slopes


def _widened(form: InputForm) -> InputForm:
    """Return the form for the copy, whose 16-bit weights were widened when they were read."""
    return form if is_whole(np.dtype(form.dtype)) else replace(form, dtype=np.result_type(form.dtype, np.float32))


def check_input(path: Path, graph: Graph, output: str | None) -> None:
    """Refuse a network whose input is nothing that samples move in: what running it would refuse, without running it.

    Raises:
        UnsupportedModelError: where the input has no shape, or holds no numbers.
    """
    _form(path, with_one_input(graph, chosen_output(path, graph, output)).inputs[0])


def _form(path: Path, value: Value) -> InputForm:
    name = f"{path}: the input {shown(value.name)}"
    if value.shape is None:
        raise UnsupportedModelError([f"{name} has no shape in the file; export the model with one"])
    if value.dtype not in (*FLOATS, *WHOLE):
        raise UnsupportedModelError(
            [f"{name} holds {value.dtype}, and inputs move by numbers: audit the network behind it, or export without"]
        )
    shape = tuple(size if isinstance(size, int) else 1 for size in value.shape)
    return InputForm(shape, np.dtype(value.dtype), has_batch_axis(value))


def chosen_output(path: Path, graph: Graph, output: str | None) -> str:
    """Return the name of the output to compute: the one asked for, or the only one. Raises OptionError."""
    names = [value.name for value in graph.outputs]
    if output is None and len(names) == 1:
        return names[0]
    if output is None:
        raise OptionError(
            f"{path}: the network has {len(names)} outputs; with --output-name choose one of {names_of(graph.outputs)}"
        )
    if output not in names:
        raise OptionError(f"{path}: there is no output {shown(output)!r}; choose one of {names_of(graph.outputs)}")
    return output


def first_line(error: Exception) -> str:
    """Return what another library's exception says, as one printable line."""
    lines = _PREAMBLE.sub("", str(error)).strip().splitlines()
    return shown(lines[0], longest=300) if lines else type(error).__name__
