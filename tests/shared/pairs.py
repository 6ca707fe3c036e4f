"""Layered models, and others near them: pairs for the tests of relations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from idl_audit.implicit.activations import ACTIVATIONS, Activation
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock

Array = np.ndarray[Any, Any]


def layered(rng: np.random.Generator, sizes: tuple[int, ...], kinds: tuple[str, ...], *, skip: bool = False) -> Any:
    """Return a chain of blocks; with `skip`, the output reads the input and every block."""
    weights = [rng.normal(size=(n, m)) / np.sqrt(m) for m, n in pairwise(sizes)]
    biases = [rng.normal(size=n) * 0.3 for n in sizes[1:]]
    more = [rng.normal(size=(sizes[-1], m)) * 0.5 for m in sizes[:-2]] if skip else []
    return chain(weights, biases, kinds, more)


def chain(
    weights: list[Array], biases: list[Array], kinds: tuple[str, ...], more: Sequence[Array] = ()
) -> ImplicitModel:
    """Return the model with these weights, the first of the input, the last of the output."""
    n = len(kinds)
    blocks, rows = [], []
    for k, kind in enumerate(reversed(kinds)):
        layer = n - 1 - k
        own = Dense(matrix=np.asarray(weights[layer], np.float64))
        blocks.append(StateBlock(f"layer {layer}", kind, activation(kind, own.n_out), (own.n_out,)))
        source = {k + 1: own} if layer else {}
        rows.append(Affine(source, None if layer else own, np.asarray(biases[layer], np.float64)))
    states = {0: Dense(matrix=np.asarray(weights[-1], np.float64))}
    states |= {n - j: Dense(matrix=matrix) for j, matrix in enumerate(more) if j}
    reads = Dense(matrix=more[0]) if len(more) else None
    output = Affine(states, reads, np.asarray(biases[-1], np.float64))
    return ImplicitModel(tuple(blocks), tuple(rows), output, (weights[0].shape[1],), (output.size,))


def activation(kind: str, size: int) -> Activation:
    """Return an activation by name; a softmax is one group."""
    return ACTIVATIONS[kind](size) if kind == "softmax" else ACTIVATIONS[kind]()


def moved(model: ImplicitModel, change: Any) -> ImplicitModel:
    """Return the model with every matrix and constant changed."""

    def of(row: Affine) -> Affine:
        states = {k: Dense(matrix=change(linear_map.to_sparse().toarray())) for k, linear_map in row.states.items()}
        reads = None if row.input is None else Dense(matrix=change(row.input.to_sparse().toarray()))
        return Affine(states, reads, change(row.constant))

    return replace(model, rows=tuple(map(of, model.rows)), output=of(model.output))


def points_of(rng: np.random.Generator, lo: Array, hi: Array, n: int) -> Array:
    """Return random points of a box, corners among them."""
    inside = lo + rng.random((n, lo.size)) * (hi - lo)
    corners = np.where(rng.random((n, lo.size)) < 0.5, lo, hi)
    return np.concatenate([inside, corners])


def onnx_chain(path: Path, weights: list[Array], biases: list[Array], *, ending: str = "") -> Path:
    """Write a chain of Gemm and Relu, and perhaps a last operator."""
    nodes, tensors, last = [], [], "x"
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        tensors += [numpy_helper.from_array(np.asarray(a, np.float32), f"{n}{k}") for n, a in (("w", w.T), ("b", b))]
        nodes.append(helper.make_node("Gemm", [last, f"w{k}", f"b{k}"], [f"z{k}"]))
        last = f"z{k}"
        if k < len(weights) - 1:
            nodes.append(helper.make_node("Relu", [last], [f"x{k}"]))
            last = f"x{k}"
    if ending:
        nodes.append(helper.make_node(ending, [last], ["end"]))
        last = "end"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, (1, weights[0].shape[1]))],
        [value("y", TensorProto.FLOAT, (1, weights[-1].shape[0]))],
        initializer=tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def drawn(rng: np.random.Generator, sizes: tuple[int, ...]) -> tuple[list[Array], list[Array]]:
    """Return random weights and biases as float32 numbers."""
    weights = [rng.normal(size=(n, m)) / np.sqrt(m) for m, n in pairwise(sizes)]
    biases = [rng.normal(size=n) * 0.2 for n in sizes[1:]]
    return [w.astype(np.float32) for w in weights], [b.astype(np.float32) for b in biases]
