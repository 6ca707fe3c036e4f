"""Networks without an implicit form that can be run: what is known of them without one.

They are attacked on the word of the original network alone, and nothing about them can be certified: whoever asks a
`Subject` for its model is answered with the refusal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.data.preprocessing import Preprocessing
from idl_audit.graph.inputs import FLOATS, sample_shape, with_one_input
from idl_audit.graph.ir import Graph
from idl_audit.graph.original import OriginalNetwork, chosen_output, onnx2torch_slopes
from idl_audit.implicit.model import ImplicitModel, InputPart
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import MemoryLimitError, UnsupportedModelError
from idl_audit.values.network import Pulled

LARGEST: Final = 2**28
"""Numbers of an input, beyond which nothing is tried."""


@dataclass(frozen=True)
class NoForm:
    """Stands where a network has no implicit model: it may be run and attacked, and nothing of it can be proved."""

    error: UnsupportedModelError | MemoryLimitError
    """Why there is none."""
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...] = ()
    """Of one sample; what the file says of it, until the network was run."""
    input_parts: tuple[InputPart, ...] = ()

    @property
    def n_inputs(self) -> int:
        """The number p of inputs."""
        return math.prod(self.input_shape)

    @property
    def n_outputs(self) -> int:
        """The number q of outputs."""
        return math.prod(self.output_shape)

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the network has no implicit form, a sentence each."""
        return self.error.problems if isinstance(self.error, UnsupportedModelError) else (str(self.error),)


def without_form(
    path: Path, graph: Graph, output: str | None, error: UnsupportedModelError | MemoryLimitError
) -> NoForm | None:
    """Return what stands for the implicit model of a network that was refused; None where it cannot be run.

    That is so of files with faults, which nobody is shown, of inputs without a size or of whole numbers, and of outputs
    that are no floats: class labels, say.
    """
    name = chosen_output(path, graph, output)
    (declared,) = (value for value in graph.outputs if value.name == name)
    if not graph.may_run or declared.dtype not in (*FLOATS, "undefined"):
        return None
    try:
        read = with_one_input(graph, name)
        shape = sample_shape(read.inputs[0])
    except UnsupportedModelError:
        return None
    if read.inputs[0].dtype not in FLOATS or not 0 < math.prod(shape) <= LARGEST:
        return None
    said = tuple(size if isinstance(size, int) else 1 for size in declared.shape or ())
    return NoForm(error, shape, said, input_parts=tuple(InputPart(one.name, sample_shape(one)) for one in read.parts))


def measured(path: Path, form: NoForm, network: OriginalNetwork) -> NoForm:
    """Return it with the outputs' shape, of a network that was run: twice, as it must give the same both times.

    Raises:
        UnsupportedModelError: where the network cannot be run, or draws random numbers: it is then no function.
    """
    points = np.random.default_rng(0).random((2, form.n_inputs)).astype(np.float32)
    with np.errstate(all="ignore"):
        first, again = network(points), network(points)
    if not np.array_equal(first, again, equal_nan=True):
        raise UnsupportedModelError([*form.problems, f"{path} gives different outputs for one input each time it runs"])
    q = first.shape[1]
    return replace(form, output_shape=form.output_shape if math.prod(form.output_shape) == q else (1, q))


def slopes_by_torch(
    path: Path, graph: Graph, output: str | None, form: ImplicitModel | NoForm, *, threshold: bool
) -> Pulled | None:
    """Return slopes of a network by torch's copy of it; None where there is no copy.

    With a threshold the weights are those of two classes, (0, y - T).
    """
    first = 1 if threshold else 0
    try:
        own = onnx2torch_slopes(path, graph, output=output)
        own(np.zeros((1, form.n_inputs)), np.ones((1, form.n_outputs - first)))
    except UnsupportedModelError:
        return None
    return lambda points, weights: own(points, weights[:, first:])


def in_units(own: Pulled, preprocessing: Preprocessing, shape: tuple[int, ...]) -> Pulled:
    """Return slopes in the user's numbers, from those in the network's: the chain rule."""
    factor, _ = preprocessing.affine(shape)

    def slopes(points: FloatArray, weights: FloatArray) -> FloatArray:
        return np.asarray(own(preprocessing.apply(points, shape).astype(np.float64), weights) * factor)

    return slopes
