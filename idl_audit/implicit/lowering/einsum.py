"""Einsum: out[o] = sum over s of X[..] W[..], or of X[..] Y[..] W[..], X and Y tensors that depend on the input."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import scipy.sparse as sp

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection, Sparse
from idl_audit.implicit.walk import TensorValue, Walk, flat_indices, refuse, text_attribute
from idl_audit.values.arrays import AnyArray, FloatArray, IntArray
from idl_audit.values.rounding import gamma

Labels = tuple[str, ...]
"""One label for each axis: a letter, or '...0', '...1', ... for those that an ellipsis stands for."""

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""What numpy's own einsum takes as labels."""


@dataclass(frozen=True)
class Labelled:
    """A tensor and the labels of its axes, no label twice and no axis of length 1 that others stretch."""

    labels: Labels
    array: AnyArray


def lower_einsum(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Einsum: diagonals, sums, products and permutations of the axes of tensors, constants among them."""
    given = [value for value in values if value is not None]
    if len(given) != len(values):
        refuse(node, "leaves an input out")
    terms, out = parsed(node, [len(value.shape) for value in given])
    sizes = sizes_of(node, terms, [value.shape for value in given])
    pairs = list(zip(terms, given, strict=True))
    constants = [
        _labelled(t, value.astype(np.float64), sizes) for t, value in pairs if not isinstance(value, AffineForm)
    ]
    forms = [
        (value, _labelled(t, flat_indices(value.shape), sizes)) for t, value in pairs if isinstance(value, AffineForm)
    ]
    (form, places), *others = forms
    for k, (other, at_other) in enumerate(others):
        form, places = _multiplied(node, (form, places), (other, at_other), sizes, walk)
        read = {label for tensor in (*constants, *(p for _, p in others[k + 1 :])) for label in tensor.labels}
        kept = tuple(label for label in places.labels if label in {*out, *read})
        if k + 1 < len(others) and kept != places.labels:
            form = _applied(node, form, places, [], kept, sizes, walk)
            places = Labelled(kept, flat_indices(form.shape))
    return (_applied(node, form, places, constants, out, sizes, walk),)


def _multiplied(
    node: Node,
    first: tuple[AffineForm, Labelled],
    second: tuple[AffineForm, Labelled],
    sizes: Mapping[str, int],
    walk: Walk,
) -> tuple[AffineForm, Labelled]:
    """Return the products of two tensors that depend on the input, with all labels of both, and where they stand."""
    axes = tuple(dict.fromkeys((*first[1].labels, *second[1].labels)))
    at_first, at_second = (_spread(places, axes, sizes) for _, places in (first, second))
    made = walk.products(node, first[0], at_first, second[0], at_second)
    return made, Labelled(axes, flat_indices(made.shape))


def adds_constants_up(node: Node, values: Sequence[TensorValue | None]) -> bool:
    """Return whether a label stands in constants alone, so that they may be added up before they multiply anything."""
    given = [value for value in values if value is not None]
    terms, out = parsed(node, [len(value.shape) for value in given])
    constant, dependent = (
        {
            label
            for term, value in zip(terms, given, strict=True)
            if isinstance(value, AffineForm) is kind
            for label in term
        }
        for kind in (False, True)
    )
    return not constant <= dependent | set(out)


def _applied(
    node: Node,
    form: AffineForm,
    places: Labelled,
    constants: Sequence[Labelled],
    out: Labels,
    sizes: Mapping[str, int],
    walk: Walk,
) -> AffineForm:
    """Return the sum over the labels that are not in `out` of the form, at `places`, times the constants."""
    axes = (*out, *(label for label in places.labels if label not in out))
    shape = tuple(sizes[label] for label in out)
    n_rows = math.prod(shape)
    walk.allow(node, math.prod(sizes[label] for label in axes))
    index = _spread(places, axes, sizes).reshape(n_rows, -1)
    if not constants and index.shape[1] == 1:
        return walk.select(node, form, index.reshape(shape))
    weights, error = _contracted(constants, axes)
    factors = _spread(weights, axes, sizes).reshape(index.shape)
    linear_map = _map(index, factors, form.size)
    if error is not None:
        linear_map = replace(linear_map, slack=_map(index, _spread(error, axes, sizes).reshape(index.shape), form.size))
    return walk.linear(node, linear_map, form, shape)


def parsed(node: Node, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """Return the labels of every input and of the output."""
    equation = text_attribute(node, "equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        refuse(node, f"has an equation '{equation}' of {len(parts)} terms for {len(ranks)} inputs")
    wide = [rank - len(part.replace("...", "")) for part, rank in zip(parts, ranks, strict=True) if "..." in part]
    terms = [_term(node, part, max(wide, default=0), rank) for part, rank in zip(parts, ranks, strict=True)]
    if arrow:
        out = _term(node, right, max(wide, default=0), None)
        if len(set(out)) < len(out) or not set(out) <= {label for term in terms for label in term}:
            refuse(node, f"has an equation '{equation}' whose output repeats a label or names one that no input has")
        return terms, out
    counts = Counter(label for term in terms for label in term)
    dots = _term(node, "...", max(wide, default=0), None)
    return terms, (*dots, *sorted(label for label, n in counts.items() if n == 1 and label not in dots))


def _term(node: Node, text: str, widest: int, rank: int | None) -> Labels:
    """Return the labels of one term; the axes of an ellipsis are counted from the right, as broadcasting does."""
    head, dots, tail = text.partition("...")
    here = widest if rank is None else rank - len(head) - len(tail)
    if not (head + tail).isalpha() and head + tail:
        refuse(node, f"has a term '{text}' in its equation that is not made of letters and one '...'")
    if (dots and here < 0) or (not dots and rank is not None and here != 0):
        refuse(node, f"has a term '{text}' in its equation for a tensor with {rank} axes")
    middle = tuple(f"...{k}" for k in range(widest - here, widest)) if dots else ()
    return (*head, *middle, *tail)


def sizes_of(node: Node, terms: Sequence[Labels], shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """Return the length of every label; an axis of length 1 stretches."""
    sizes: dict[str, int] = {}
    for labels, shape in zip(terms, shapes, strict=True):
        for label, size in zip(labels, shape, strict=True):
            known = sizes.setdefault(label, size)
            if size != known and 1 not in (size, known):
                refuse(node, f"has axes of lengths {known} and {size} under one label, '{label}'")
            sizes[label] = size if known == 1 else known
    return sizes


def _labelled(labels: Labels, array: AnyArray, sizes: Mapping[str, int]) -> Labelled:
    """Return the tensor with diagonals taken for labels that stand twice, and without axes that stretch."""
    stretched = tuple(k for k, label in enumerate(labels) if array.shape[k] != sizes[label])
    array = array.reshape([n for k, n in enumerate(array.shape) if k not in stretched])
    labels = tuple(label for k, label in enumerate(labels) if k not in stretched)
    once = tuple(dict.fromkeys(labels))
    if len(once) < len(labels):
        array = np.einsum(f"{_letters(labels, once)}->{_letters(once, once)}", array)
    return Labelled(once, array)


def _contracted(constants: Sequence[Labelled], axes: Labels) -> tuple[Labelled, Labelled | None]:
    """Return the constants' product, summed over labels not in `axes`, and a bound on its rounding where it rounds."""
    names = tuple(dict.fromkeys(label for constant in constants for label in constant.labels))
    kept = tuple(name for name in names if name in axes)
    equation = ",".join(_letters(constant.labels, names) for constant in constants) + "->" + _letters(kept, names)
    if not constants:
        return Labelled((), np.ones(())), None
    product = np.einsum(equation, *(constant.array for constant in constants))
    if len(constants) == 1 and kept == names:
        return Labelled(kept, product), None
    lost = math.prod(_length(constants, name) for name in names if name not in kept)
    size = np.einsum(equation, *(np.abs(constant.array) for constant in constants))
    return Labelled(kept, product), Labelled(kept, 2 * gamma(lost + 2 * len(constants)) * size)


def _letters(labels: Labels, names: Labels) -> str:
    return "".join(_LETTERS[names.index(label)] for label in labels)


def _length(constants: Sequence[Labelled], name: str) -> int:
    return max(int(c.array.shape[c.labels.index(name)]) for c in constants if name in c.labels)


def _spread(tensor: Labelled, axes: Labels, sizes: Mapping[str, int]) -> AnyArray:
    """Return the tensor with these axes, broadcast along those that it lacks."""
    order = [tensor.labels.index(label) for label in axes if label in tensor.labels]
    shape = [sizes[label] if label in tensor.labels else 1 for label in axes]
    return np.broadcast_to(tensor.array.transpose(order).reshape(shape), [sizes[label] for label in axes])


def _map(index: IntArray, weights: FloatArray, size: int) -> LinearMap:
    """Return the map whose row i has weights[i, k] at index[i, k], no index twice in a row."""
    n_rows, n_terms = index.shape
    if n_terms == 1:
        return Selection(index=index[:, 0].copy(), size_in=size, weights=weights[:, 0].copy())
    if n_terms == size:  # every row reads the whole tensor
        dense = np.zeros((n_rows, size))
        np.put_along_axis(dense, index, weights, axis=1)
        return Dense(matrix=dense)
    offsets = np.arange(n_rows + 1) * n_terms
    matrix = sp.csr_array((weights.reshape(-1), index.reshape(-1), offsets), shape=(n_rows, size))
    matrix.sort_indices()
    return Sparse(matrix=matrix)
