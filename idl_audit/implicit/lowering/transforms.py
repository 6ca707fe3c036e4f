"""Fixed linear transforms: running sums, Fourier transforms, blocks added up to an image, rotations of positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from idl_audit.graph.ir import Node
from idl_audit.implicit.affine import AffineForm
from idl_audit.implicit.linear_maps import Selection, Sparse
from idl_audit.implicit.lowering.sums import along_axis, entries
from idl_audit.implicit.walk import (
    TensorValue,
    Walk,
    constant_input,
    flat_indices,
    form_input,
    int_attribute,
    ints_attribute,
    optional_constant,
    refuse,
)
from idl_audit.values.arrays import FloatArray, IntArray


def lower_cumulative_sum(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """CumSum: y_t = sum over s <= t of x_s (s < t where exclusive, s >= t where reversed)."""
    form = form_input(node, values, 0)
    axis = _axis(node, form, int(constant_input(node, values, 1, "axis").reshape(-1)[0]))
    n = form.shape[axis]
    walk.allow(node, form.size * (n + 1) // 2)
    matrix = np.tri(n, k=-1 if int_attribute(node, "exclusive", 0) else 0)
    if int_attribute(node, "reverse", 0):
        matrix = matrix.T
    return (along_axis(node, form, axis, sp.csr_array(matrix), walk),)


def _axis(node: Node, form: AffineForm, axis: int) -> int:
    rank = len(form.shape)
    if not -rank <= axis < rank:
        refuse(node, f"has the axis {axis} for a tensor of shape {form.shape}")
    return axis % rank


def lower_dft(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """DFT: y_k = sum over t of exp(-2 pi i k t / n) x_t, and its inverse; the last axis holds (real, imaginary)."""
    form = form_input(node, values, 0)
    given = optional_constant(node, values, 2, "axis")
    axis = int_attribute(node, "axis", 1) if walk.opset < 20 else -2 if given is None else int(given.reshape(-1)[0])
    axis, rank = _axis(node, form, axis), len(form.shape)
    if rank < 2 or axis == rank - 1 or form.shape[-1] not in (1, 2):
        refuse(node, f"transforms axis {axis} of shape {form.shape}, whose last axis must have length 1 or 2")
    inverse, one_sided = bool(int_attribute(node, "inverse", 0)), bool(int_attribute(node, "onesided", 0))
    size, parts = form.shape[axis], form.shape[-1]
    to_real = inverse and one_sided
    length = optional_constant(node, values, 1, "length")
    n = int(length.reshape(-1)[0]) if length is not None and length.size else 2 * (size - 1) if to_real else size
    if n < 1 or (one_sided and not inverse and parts == 2) or (to_real and parts == 1):
        refuse(node, f"has the length {n}, or is one-sided, which does not fit a tensor of shape {form.shape}")
    walk.allow(node, 2 * n * parts * form.size)
    real, imaginary = _fourier(n, inverse=inverse)
    used = min(size, n // 2 + 1 if to_real else n)
    if to_real:  # the other half is the conjugate: it adds as much to the real part
        twice = np.where((np.arange(used) == 0) | (2 * np.arange(used) == n), 1.0, 2.0)
        real, imaginary = real[:, :used] * twice, imaginary[:, :used] * twice
    rows = n // 2 + 1 if one_sided and not inverse else n
    whole = np.zeros((rows, 1 if to_real else 2, size, parts))
    whole[:, :, :used] = _complex_product(real[:rows, :used], imaginary[:rows, :used], parts)[:, : whole.shape[1]]
    return (_on_complex_axis(node, form, axis, whole, 1.0 / n if inverse else 1.0, walk),)


def _fourier(n: int, *, inverse: bool) -> tuple[FloatArray, FloatArray]:
    """Return (cos, -sin) of 2 pi k t / n, shape (n, n), or (cos, sin) / n; within 2^-49 of it, quarters exact."""
    turns = np.outer(np.arange(n), np.arange(n)) % n
    angle = 2 * np.pi * turns / n
    real, imaginary = np.cos(angle), -np.sin(angle)
    real[(4 * turns == n) | (4 * turns == 3 * n)] = 0.0
    imaginary[(turns == 0) | (2 * turns == n)] = 0.0
    return (real / n, -imaginary / n) if inverse else (real, imaginary)


FOURIER_ERROR = 2.0**-48
"""More than sines, cosines and their multiples of up to 2 are off by: angles up to 2 pi, rounded thrice."""


def _complex_product(real: FloatArray, imaginary: FloatArray, parts: int) -> FloatArray:
    """Return the matrix of z -> (real + i imaginary) z, shape (rows, 2, columns, parts)."""
    result = np.empty((real.shape[0], 2, real.shape[1], parts))
    result[:, 0, :, 0], result[:, 1, :, 0] = real, imaginary
    if parts == 2:
        result[:, 0, :, 1], result[:, 1, :, 1] = -imaginary, real
    return result


def _on_complex_axis(
    node: Node, form: AffineForm, axis: int, matrix: FloatArray, scale: float, walk: Walk
) -> AffineForm:
    """Apply a matrix, shape (rows, parts out, columns, parts in), to (axis, last axis) of the form."""
    rows, parts_out, columns, parts_in = matrix.shape
    order = np.moveaxis(flat_indices(form.shape), axis, -2)
    lines = walk.select(node, form, np.ascontiguousarray(order)).reshaped((*order.shape[:-2], columns * parts_in))
    flat = matrix.reshape(rows * parts_out, columns * parts_in)
    sparse = sp.csr_array(flat)
    slack = sp.csr_array(np.where(flat != 0, FOURIER_ERROR * scale, 0.0))
    made = along_axis(node, lines, len(lines.shape) - 1, sparse, walk, slack=slack)
    back = np.moveaxis(flat_indices((*order.shape[:-2], rows, parts_out)), -2, axis)
    return walk.select(node, made, np.ascontiguousarray(back))


def lower_stft(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """STFT: frames of a signal (batch, length, 1 or 2), times a window, each transformed."""
    form = form_input(node, values, 0)
    step = int(constant_input(node, values, 1, "frame step").reshape(-1)[0])
    window, length = (optional_constant(node, values, k, what) for k, what in ((2, "window"), (3, "frame length")))
    if len(form.shape) != 3 or form.shape[2] not in (1, 2):
        refuse(node, f"has a signal of shape {form.shape}; it must be (batch, length, 1 or 2)")
    batch, size, parts = form.shape
    frame = int(length.reshape(-1)[0]) if length is not None else size if window is None else window.size
    if not 1 <= frame <= size or step < 1 or (window is not None and window.shape != (frame,)):
        refuse(node, f"has frames of {frame} every {step} entries, which do not fit a signal of length {size}")
    one_sided = bool(int_attribute(node, "onesided", 1))
    if one_sided and parts == 2:
        refuse(node, "is one-sided, which is for real signals, but its signal is complex")
    real, imaginary = _fourier(frame, inverse=False)
    rows = frame // 2 + 1 if one_sided else frame
    weights = np.ones(frame) if window is None else window.astype(np.float64)
    block = _complex_product(real[:rows] * weights, imaginary[:rows] * weights, parts)
    starts = np.arange(0, size - frame + 1, step)
    walk.allow(node, batch * len(starts) * block.size)
    matrix = _frames(block.reshape(rows * 2, frame * parts), starts * parts, size * parts)
    largest = float(np.abs(weights).max(initial=0.0))
    slack = matrix.copy()
    slack.data = np.full_like(slack.data, FOURIER_ERROR * largest)
    made = along_axis(node, form.reshaped((batch, size * parts)), 1, matrix, walk, slack=slack)
    return (made.reshaped((batch, len(starts), rows, 2)),)


def _frames(block: FloatArray, starts: IntArray, size: int) -> sp.csr_array:
    """Return the block once for every start, moved right by it, one under the other."""
    rows = np.arange(len(starts) * len(block)).reshape(len(starts), len(block), 1)
    columns = starts[:, None, None] + np.arange(block.shape[1])
    shape = (len(starts), *block.shape)
    row, column = (np.broadcast_to(part, shape).reshape(-1) for part in (rows, columns))
    return entries(row, column, np.broadcast_to(block, shape).reshape(-1), (len(starts) * len(block), size))


def lower_col2im(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """Col2Im: column l of (batch, channels * block, columns) is added to the image where block l lies."""
    form = form_input(node, values, 0)
    image, block = (
        tuple(int(n) for n in constant_input(node, values, k, what).reshape(-1))
        for k, what in ((1, "image shape"), (2, "block shape"))
    )
    rank = len(image)
    strides, dilations = (ints_attribute(node, name, None) or (1,) * rank for name in ("strides", "dilations"))
    pads = ints_attribute(node, "pads", None) or (0,) * (2 * rank)
    if len(form.shape) != 3 or len({rank, len(block), len(strides), len(dilations), len(pads) // 2}) != 1:
        refuse(node, f"has columns of shape {form.shape} and blocks {block} for an image {image}, which do not fit")
    place, inside = np.zeros((1, 1), np.int64), np.ones((1, 1), np.bool_)
    for a in range(rank):
        reach = image[a] + pads[a] + pads[rank + a] - dilations[a] * (block[a] - 1) - 1
        where = np.arange(block[a])[:, None] * dilations[a] + np.arange(reach // strides[a] + 1) * strides[a] - pads[a]
        here = (where >= 0) & (where < image[a])
        shape = (place.shape[0] * where.shape[0], place.shape[1] * where.shape[1])
        place = (place[:, None, :, None] * image[a] + where[None, :, None, :]).reshape(shape)
        inside = (inside[:, None, :, None] & here[None, :, None, :]).reshape(shape)
    batch, planes, columns = form.shape
    if planes % place.shape[0] or columns != place.shape[1]:
        refuse(node, f"has columns of shape {form.shape}; an image {image} in blocks {block} has {place.shape}")
    channels = planes // place.shape[0]
    pixels = math.prod(image)
    target = np.arange(batch * channels)[:, None] * pixels + place.reshape(-1)
    source = np.where(inside.reshape(-1), flat_indices((batch * channels, place.size)), -1)
    matrix = entries(target.reshape(-1), source.reshape(-1), 1.0, (batch * channels * pixels, form.size))
    return (walk.linear(node, Sparse(matrix=matrix), form, (batch, channels, *image)),)


def lower_rotary_embedding(node: Node, values: Sequence[TensorValue | None], walk: Walk) -> tuple[TensorValue, ...]:
    """RotaryEmbedding with constant caches: pairs (x, x') of a head become (cos x - sin x', sin x + cos x')."""
    form = form_input(node, values, 0)
    heads = _heads(node, form)
    cosines, sines = (constant_input(node, values, k, "cache").astype(np.float64) for k in (1, 2))
    positions = optional_constant(node, values, 3, "list of positions")
    if positions is not None:
        cosines, sines = cosines[positions], sines[positions]
    turned = int_attribute(node, "rotary_embedding_dim", 0) or heads.shape[-1]
    parts = heads[..., :turned]
    if int_attribute(node, "interleaved", 0):
        first, second = parts[..., 0::2], parts[..., 1::2]
    else:
        first, second = parts[..., : turned // 2], parts[..., turned // 2 :]
    if cosines.shape != sines.shape or cosines.shape != (*heads.shape[:2], turned // 2) or turned % 2:
        refuse(node, f"has caches of shapes {cosines.shape} and {sines.shape} for heads of shape {heads.shape}")
    own, across, partner = np.ones(form.size), np.zeros(form.size), np.arange(form.size)
    own[first] = own[second] = cosines[:, :, None, :]
    across[first], across[second] = -sines[:, :, None, :], sines[:, :, None, :]
    partner[first], partner[second] = second, first
    crossing = Selection(index=partner, size_in=form.size, weights=across)
    diagonal = walk.linear(node, Selection.diagonal(own), form, form.shape)
    return (diagonal.plus(walk.linear(node, crossing, form, form.shape)),)


def _heads(node: Node, form: AffineForm) -> IntArray:
    """Return the places of a tensor's entries as (batch, sequence, heads, entries of a head)."""
    places, n = flat_indices(form.shape), int_attribute(node, "num_heads", 0)
    if places.ndim == 4:
        return places.transpose(0, 2, 1, 3)
    if places.ndim != 3 or n < 1 or places.shape[2] % n:
        refuse(node, f"has an input of shape {form.shape} and {n} heads, which do not fit")
    return places.reshape(*places.shape[:2], n, -1)
