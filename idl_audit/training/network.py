"""A network whose weights can be trained: its graph, node by node on torch, on samples and on boxes around them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor

from idl_audit.graph.ir import Graph, Node, live_nodes, shown
from idl_audit.training.operators import TWINS, attribute, refused
from idl_audit.training.spans import Span, Value
from idl_audit.training.spreads import spread_of
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.errors import OptionError, UnsupportedModelError

LAST = frozenset({"Softmax", "LogSoftmax"})
"""Operators that keep the order of the classes: training stops before one at the end."""
_SAME_ORDER = frozenset({"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that give back the numbers in the order in which they read them."""


@dataclass(eq=False)
class Twin:
    """A graph and its weights as tensors of torch, some of which are to be trained."""

    graph: Graph
    nodes: tuple[Node, ...]
    """Those that the scores depend on, in topological order."""
    scores: str
    """The value that is the network's output, before a last softmax."""
    constants: dict[str, Tensor]
    """All of the graph's, those of `weights` among them."""
    weights: dict[str, Tensor]
    """Those that are trained, by the names of the initializers."""
    shape: tuple[int, ...]
    """Of one sample, without a batch axis."""
    output: str
    """The value that was asked for."""

    @classmethod
    def of(
        cls,
        graph: Graph,
        output: str,
        shape: Sequence[int],
        *,
        trained: Collection[str] | None = None,
        freeze: Sequence[str] = (),
    ) -> Twin:
        """Return the twin of what an output depends on; every float weight is trained unless a pattern names it.

        Args:
            graph: the network as it was read.
            output: the value that holds the scores of the classes.
            shape: of one sample, a batch axis of 1 included.
            trained: names of constants that may be trained; all where left out.
            freeze: patterns (`*`, `?`) of initializers that stay.

        Raises:
            UnsupportedModelError: with every operator that cannot be trained through.
            OptionError: where a pattern names no weight, or nothing is left to train.
        """
        if len(shape) < 2 or shape[0] != 1:
            raise UnsupportedModelError(["the first axis of the input is no batch axis, and training needs batches"])
        asked = output
        nodes = live_nodes(graph.nodes, [output])
        last = next((node for node in nodes if output in node.outputs), None)
        if last is not None and last.op in LAST:
            output = last.inputs[0]
            nodes = live_nodes(graph.nodes, [output])
        unknown = [f"{node.op} node '{shown(node.label)}' cannot be trained through" for node in nodes]
        unknown = [text for text, node in zip(unknown, nodes, strict=True) if node.op not in TWINS]
        if unknown:
            raise UnsupportedModelError(unknown)
        read = {name for node in nodes for name in node.inputs}
        constants = {name: _tensor(value) for name, value in graph.constants.items() if name in read}
        frozen = {name for name in constants if any(fnmatchcase(name, one) for one in freeze)}
        for one in freeze:
            if not any(fnmatchcase(name, one) for name in constants):
                raise OptionError(f"--freeze {one}: no weight of the network has such a name")
        weights = {
            name: constants[name].requires_grad_()
            for name in sorted(constants)
            if name not in frozen | _statistics(nodes)
            and (trained is None or name in trained)
            and _is_trained(constants[name], graph.constants[name])
        }
        if not weights:
            raise OptionError("nothing is left to train: every weight is frozen, or the network has none")
        return cls(graph, nodes, output, constants, weights, tuple(shape[1:]), asked)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the scores of samples, (n, ...) -> (n, q)."""
        found = self._run(x)[self.scores]
        assert isinstance(found, Tensor)
        return found.reshape(len(x), -1)

    def span(self, box: Span) -> Span:
        """Return intervals of the scores over boxes around samples, (n, q)."""
        found = self._run(box)[self.scores]
        assert isinstance(found, Span)
        return found.moved(lambda t: t.reshape(len(box.centre), -1))

    def worst(self, box: Span, labels: Tensor) -> Tensor:
        """Return upper bounds of y_j - y_label over boxes, (n, q); 0 at the label.

        A last linear layer is bounded together with the difference, (W_j - W_label) h + b_j - b_label, which intervals
        of its own results would lose.
        """
        last = _LastLayer.of(self.nodes, self.scores)
        rows = torch.arange(len(labels))
        if last is not None:
            values = self._run(box, last.reads)
            hidden, weight = values[last.reads], self._value(values, last.weight)
            if isinstance(hidden, Span) and isinstance(weight, Tensor) and hidden.centre.dim() == 2:
                matrix = weight if last.transposed else weight.T
                bias = None if last.bias is None else self._value(values, last.bias)
                if isinstance(bias, Tensor | None) and last.scale == 1:
                    own, places = torch.unique(labels, return_inverse=True)
                    apart = (matrix[None] - matrix[own][:, None]).abs()
                    spread = (hidden.radius @ apart.flatten(0, 1).T).reshape(len(labels), len(own), -1)[rows, places]
                    found: Tensor = hidden.centre @ matrix.T
                    if bias is not None:
                        found = found + bias.reshape(-1)
                    return found - found[rows, labels][:, None] + spread
        scores = self.span(box)
        above = scores.hi - scores.lo[rows, labels][:, None]
        return above.index_put((rows, labels), torch.zeros(len(labels)))

    def spread(self, radius: Tensor, *, alike: bool = False) -> Tensor:
        """Return how far each score moves at most, (q,), where entries of any input move by `radius`.

        That is S r for S = |C| (I - |A|)^-1 |B| + |D| (paper, Theorem 4.2), the slopes of the activations in it; with
        `alike`, all states of a layer are taken to move as far as the one that moves most, which is what one scale a
        layer gives in the paper's bound (4.7). See docs/mathematics.md, section 9.8.

        Raises:
            UnsupportedModelError: where nothing bounds how far an operator moves its result.
        """
        (entry,) = self.graph.inputs
        moved = torch.broadcast_to(radius, self.shape)[None]
        values: dict[str, Value] = {entry.name: Span(torch.zeros_like(moved), moved)}
        for node in self.nodes:
            arguments = [self._value(values, name) if name else None for name in node.inputs]
            results = spread_of(node, arguments, self.graph.opset, alike=alike)
            values.update(zip(node.outputs, results, strict=False))
        found = values[self.scores]
        assert isinstance(found, Span)
        return found.radius.reshape(-1)

    def columns(self) -> Tensor:
        """Return ||B e_j||_2 of each input j, (p,), B what the first dense layer multiplies inputs by: paper (5.1).

        Raises:
            UnsupportedModelError: where something else than a dense layer reads the inputs.
        """
        (entry,) = self.graph.inputs
        reads, found = {entry.name}, []
        for node in self.nodes:
            if not reads.intersection(node.inputs):
                continue
            if node.op in _SAME_ORDER:
                reads.update(node.outputs)
                continue
            weight = self.constants.get(node.inputs[1]) if node.op in ("Gemm", "MatMul") else None
            inside = node.inputs[0] in reads and not attribute(node, "transA", 0)
            axis = 1 if attribute(node, "transB", 0) else 0
            whole = weight is not None and weight.dim() == 2 and weight.shape[axis] == math.prod(self.shape)
            if weight is None or not (inside and whole):
                raise refused(
                    node, "it reads the inputs, and columns are those of a dense layer; choose another --method"
                )
            found.append(weight.square().sum(1 - axis))
        return (torch.stack(found).sum(0) + torch.finfo().tiny).sqrt()  # a slope at 0, too

    def distance(self, rows: FloatArray, outputs: FloatArray) -> float:
        """Return how far the scores of several samples at once are from given ones, of max|y|; NaN counts as far.

        A network that treats its first axis as anything but a batch is told by it.

        Args:
            rows: (m, p), as the network reads them.
            outputs: (m, q).
        """
        with torch.no_grad():
            try:
                ours = self(torch.from_numpy(rows.astype(np.float32).reshape(-1, *self.shape))).numpy()
            except (RuntimeError, IndexError):
                return float("inf")
        if ours.shape != outputs.shape:
            return float("inf")
        apart = float(np.abs(ours - outputs).max(initial=0.0)) / max(float(np.abs(outputs).max(initial=0.0)), 1e-30)
        return apart if apart == apart else float("inf")

    def arrays(self) -> dict[str, FloatArray]:
        """Return the weights as they are now, by the names of the initializers."""
        return {name: weight.detach().numpy().copy() for name, weight in self.weights.items()}

    def take(self, arrays: Mapping[str, AnyArray]) -> None:
        """Put weights in place of those that are there."""
        with torch.no_grad():
            for name, array in arrays.items():
                self.weights[name].copy_(torch.from_numpy(np.asarray(array)))

    def _value(self, values: Mapping[str, Value], name: str) -> Value:
        return values[name] if name in values else self.constants[name]

    def _run(self, x: Value, until: str | None = None) -> dict[str, Value]:
        """Return all values, or those up to one."""
        (entry,) = self.graph.inputs
        values: dict[str, Value] = {entry.name: x}
        for node in self.nodes:
            if until in values:
                break
            arguments = [self._value(values, name) if name else None for name in node.inputs]
            results = TWINS[node.op](node, arguments, self.graph.opset)
            values.update(zip(node.outputs, results, strict=False))
        return values


@dataclass(frozen=True)
class _LastLayer:
    """The linear layer that ends a network."""

    reads: str
    weight: str
    bias: str | None
    transposed: bool
    """Whether the weight's rows are the classes."""
    scale: float

    @classmethod
    def of(cls, nodes: Sequence[Node], scores: str) -> _LastLayer | None:
        """Return it where the scores are a Gemm, or a MatMul with or without a bias behind it."""
        makers = {name: node for node in nodes for name in node.outputs}
        node, bias = makers.get(scores), None
        if node is not None and node.op == "Add":
            for place in (0, 1):
                maker = makers.get(node.inputs[place])
                if maker is not None and maker.op == "MatMul" and node.inputs[1 - place] not in makers:
                    return cls(maker.inputs[0], maker.inputs[1], node.inputs[1 - place], False, 1.0)
            return None
        if node is not None and node.op == "MatMul":
            return cls(node.inputs[0], node.inputs[1], bias, False, 1.0)
        if node is None or node.op != "Gemm" or attribute(node, "transA", 0):
            return None
        scale = float(attribute(node, "alpha", 1.0)) if attribute(node, "beta", 1.0) == 1 else 0.0
        bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] else None
        return cls(node.inputs[0], node.inputs[1], bias, bool(attribute(node, "transB", 0)), scale)


def _tensor(array: AnyArray) -> Tensor:
    kind = np.float32 if array.dtype.kind == "f" else array.dtype
    return torch.from_numpy(np.array(array, kind))


def _is_trained(weight: Tensor, array: AnyArray) -> bool:
    """Whether it is a matrix, a kernel or a vector of numbers; scalars are part of the formula."""
    return weight.is_floating_point() and array.ndim > 0 and array.size > 1


def _statistics(nodes: Iterable[Node]) -> set[str]:
    """Return the names of batch-norms' means and variances: they were measured, not chosen."""
    return {name for node in nodes if node.op == "BatchNormalization" for name in node.inputs[3:5]}
