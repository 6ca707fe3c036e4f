"""Convolutions that stay convolutions: a kernel, never 10^8 numbers, until a linear program asks for the matrix.

Windows are copied out, some rows of a batch at a time, and multiplied by the kernel, so that the usual bound on the
rounding of a dot product holds for each entry: there is neither a Winograd nor a Fourier transform.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
import scipy.sparse as sp
from numpy.lib.stride_tricks import sliding_window_view

from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.products import product

NUMBERS_AT_ONCE: Final = 2**19
"""Numbers in the windows that are copied at a time: few enough to stay in cache."""

FOLDED_AT_ONCE = 2**17
"""Numbers that windows are folded from at a time: what stays in the cache is folded three times as fast."""

SMALL_WINDOW = 2**17
"""Entries of the matrix of a window that is multiplied by as a whole."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Convolution(LinearMap):
    """y[o, t] = sum over c, k of kernel[o, c, k] x[group(o) + c, stride t + dilation k - pads], zero outside.

    Vectors are images flattened from (channels, *spatial); 1, 2 or 3 spatial axes.
    """

    kernel: FloatArray
    """(out channels, in channels / groups, *taps)"""
    spatial_in: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    """Zeros before each spatial axis, then zeros behind each (ONNX's order)."""
    dilations: tuple[int, ...]
    groups: int = 1

    def __post_init__(self) -> None:
        if min(self.spatial_out, default=1) < 1:
            raise ValueError(f"the kernel {self.kernel.shape[2:]} does not fit into the padded input {self.spatial_in}")

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.spatial_in)

    @cached_property
    def spatial_out(self) -> tuple[int, ...]:
        """Spatial shape of the output."""
        return tuple(
            (size + self.pads[a] + self.pads[self.rank + a] - self.dilations[a] * (self.kernel.shape[2 + a] - 1) - 1)
            // self.strides[a]
            + 1
            for a, size in enumerate(self.spatial_in)
        )

    @property
    def channels_in(self) -> int:
        """Channels of the input."""
        return int(self.kernel.shape[1]) * self.groups

    @property
    def channels_out(self) -> int:
        """Channels of the output."""
        return int(self.kernel.shape[0])

    @property
    def n_in(self) -> int:
        """Length of the flattened input."""
        return self.channels_in * math.prod(self.spatial_in)

    @property
    def n_out(self) -> int:
        """Length of the flattened output."""
        return self.channels_out * math.prod(self.spatial_out)

    @cached_property
    def nnz(self) -> int:
        """Number of (output, tap) pairs that fall inside the input."""
        inside = math.prod(int(self._axis_taps(axis)[1].sum()) for axis in range(self.rank))
        return self.channels_out * int(self.kernel.shape[1]) * inside

    @property
    def row_terms(self) -> int:
        """Taps times input channels of a group."""
        return math.prod(self.kernel.shape[1:])

    @property
    def column_terms(self) -> int:
        """An upper bound: every tap of every output channel of the group."""
        return math.prod(self.kernel.shape[2:]) * (self.channels_out // self.groups)

    def _axis_taps(self, axis: int) -> tuple[IntArray, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
        """Return (position, inside), each (out, taps): which input a tap reads along an axis, and whether it is one."""
        out = np.arange(self.spatial_out[axis])[:, None] * self.strides[axis] - self.pads[axis]
        position = out + np.arange(self.kernel.shape[2 + axis])[None, :] * self.dilations[axis]
        return position, (position >= 0) & (position < self.spatial_in[axis])

    @property
    def pixels_in(self) -> int:
        """Pixels of the input."""
        return math.prod(self.spatial_in)

    @cached_property
    def reads(self) -> IntArray:
        """Which pixel of the input each tap reads for each pixel of the output, (pixels, taps); -1 in the padding."""
        read = np.zeros((1, 1), np.int64)
        for axis in range(self.rank):
            position, inside = self._axis_taps(axis)
            here = np.where(inside, position, -1)[None, :, None, :]
            before = read[:, None, :, None]
            joined = np.where((before < 0) | (here < 0), -1, before * self.spatial_in[axis] + here)
            read = joined.reshape(len(read) * len(position), -1)
        return read

    @property
    def _by_group(self) -> FloatArray:
        """The kernel as matrices, (groups, out channels of one, row_terms)."""
        return self.kernel.reshape(self.groups, self.channels_out // self.groups, self.row_terms)

    @property
    def _padded(self) -> tuple[int, ...]:
        """Spatial shape of the input with its zeros."""
        return tuple(self.pads[a] + size + self.pads[self.rank + a] for a, size in enumerate(self.spatial_in))

    @property
    def _inner(self) -> tuple[slice, ...]:
        """Where the input stands among its zeros, in an array (rows, channels, *padded)."""
        spatial = (slice(self.pads[a], self.pads[a] + size) for a, size in enumerate(self.spatial_in))
        return (slice(None), slice(None), *spatial)

    def _parts(self, rows: int) -> Iterator[slice]:
        """Yield runs of rows whose windows are about NUMBERS_AT_ONCE numbers."""
        at_once = max(1, NUMBERS_AT_ONCE // (self.groups * self.row_terms * math.prod(self.spatial_out)))
        yield from (slice(start, min(start + at_once, rows)) for start in range(0, rows, at_once))

    def apply(self, x: FloatArray) -> FloatArray:
        """Return W x for each row of x."""
        pixels = math.prod(self.spatial_out)
        result = np.empty((len(x), self.groups, self.channels_out // self.groups, pixels))
        for part in self._parts(len(x)):
            windows = self._windows(np.asarray(x[part], np.float64))
            result[part] = product(self._by_group, windows.reshape(-1, self.groups, self.row_terms, pixels))
        return result.reshape(len(x), self.n_out)

    def _windows(self, x: FloatArray) -> FloatArray:
        """Return what every tap reads, (m, in channels, *taps, *spatial_out), for rows x, (m, n_in)."""
        image = x.reshape(len(x), self.channels_in, *self.spatial_in)
        if any(self.pads):
            padded = np.zeros((*image.shape[:2], *self._padded))
            padded[self._inner] = image
            image = padded
        span = tuple(d * (size - 1) + 1 for d, size in zip(self.dilations, self.kernel.shape[2:], strict=True))
        views = sliding_window_view(image, span, axis=tuple(range(2, 2 + self.rank)))
        steps = (slice(None, None, step) for step in (*self.strides, *self.dilations))
        views = views[(slice(None), slice(None), *steps)]
        order = (0, 1, *range(2 + self.rank, 2 + 2 * self.rank), *range(2, 2 + self.rank))
        return np.ascontiguousarray(views.transpose(order))

    def adjoint(self, y: FloatArray) -> FloatArray:
        """Return W^T y for each row of y."""
        pixels = math.prod(self.spatial_out)
        result = np.empty((len(y), self.channels_in, *self.spatial_in))
        for part in self._parts(len(y)):
            image = np.asarray(y[part], np.float64).reshape(-1, self.groups, self.channels_out // self.groups, pixels)
            result[part] = self._spread(product(self._by_group.transpose(0, 2, 1), image))
        return result.reshape(len(y), self.n_in)

    def _spread(self, taps: FloatArray) -> FloatArray:
        """Return the sum of what every tap gives back to where it reads, (m, groups, row_terms, pixels) -> images."""
        each = taps.reshape(len(taps), self.channels_in, *self.kernel.shape[2:], *self.spatial_out)
        total = np.zeros((len(taps), self.channels_in, *self._padded))
        for tap in np.ndindex(*self.kernel.shape[2:]):
            window = self._read_by(tap, self.spatial_out)
            total[(slice(None), slice(None), *window)] += each[(slice(None), slice(None), *tap)]
        return total[self._inner]

    def _read_by(self, tap: tuple[int, ...], extent: tuple[int, ...]) -> tuple[slice, ...]:
        """Return what a tap reads of the padded input, for windows of so many outputs along each axis."""
        each = zip(tap, self.dilations, self.strides, extent, strict=True)
        return tuple(slice(t * d, t * d + (e - 1) * s + 1, s) for t, d, s, e in each)

    def adjoint_patches(self, y: FloatArray) -> FloatArray:
        """Return W^T y for windows of the output, channels last, of whatever size; what is beyond an edge is kept.

        Args:
            y: (R, *extent, channels out).

        Returns:
            (R, *((extent - 1) stride + dilation (taps - 1) + 1), channels in): the windows of the padded input.
        """
        rows, *extent, _ = y.shape
        matrix = _small_window(self, tuple(extent))
        if matrix is not None:
            return product(y.reshape(rows, -1), matrix[0]).reshape(rows, *matrix[1])
        return self._folded(y)

    def _folded(self, y: FloatArray) -> FloatArray:
        rows, *extent, channels = y.shape
        sizes = [
            (e - 1) * s + d * (n - 1) + 1
            for e, s, d, n in zip(extent, self.strides, self.dilations, self.kernel.shape[2:], strict=True)
        ]
        if self._runs is None:
            return self._folded_by_taps(y, tuple(sizes))
        kernels, shift = self._runs
        *leading, count = kernels.shape[:-2]
        kernels = kernels.reshape(-1, *kernels.shape[-2:])
        run = extent[-1] * kernels.shape[-1]
        result = np.zeros((rows, *sizes[:-1], (count - 1) * shift + run))
        at_once = max(1, FOLDED_AT_ONCE // max(1, math.prod(extent[:-1]) * len(kernels) * run))
        for start in range(0, rows, at_once):
            part = y[start : start + at_once]
            lines = product(part.reshape(-1, channels), kernels).reshape(-1, len(part), *extent[:-1], run)
            for each, (*tap, number) in zip(lines, np.ndindex(*leading, count), strict=True):
                window = self._read_by((*tap, 0), tuple(extent))[:-1]
                first = number * shift
                result[(slice(start, start + at_once), *window, slice(first, first + run))] += each
        return result.reshape(rows, *sizes[:-1], -1, self.channels_in)[..., : sizes[-1], :]

    @cached_property
    def _runs(self) -> tuple[FloatArray, int] | None:
        """Kernels by which neighbouring outputs give back to neighbouring inputs, and how far one lies behind another.

        As many taps of the last axis as its stride has steps go together, zeros where there are fewer: what a line of
        outputs gives back to is a line without gaps. They have the shape (*leading taps, runs, out channels, taps of a
        run * in channels). None where a line has gaps all the same, or where there are groups.
        """
        step, dilation, taps = self.strides[-1], self.dilations[-1], self.kernel.shape[-1]
        if self.groups > 1 or (step > 1 and dilation > 1):
            return None
        missing = -taps % step
        kernel = np.pad(self.kernel, [(0, 0)] * (1 + self.rank) + [(0, missing)])
        kernel = kernel.reshape(*kernel.shape[:-1], -1, step)  # (out, in, *leading, runs, step)
        order = (*range(2, 2 + self.rank), 0, 2 + self.rank, 1)
        kernel = np.ascontiguousarray(kernel.transpose(order))
        shift = step if step > 1 else dilation
        return kernel.reshape(*kernel.shape[:-2], -1), shift * self.channels_in

    def _folded_by_taps(self, y: FloatArray, sizes: tuple[int, ...]) -> FloatArray:
        rows, *extent, _ = y.shape
        taps = self.kernel.shape[2:]
        result = np.zeros((rows, *sizes, self.channels_in))
        at_once = max(1, FOLDED_AT_ONCE // max(1, math.prod(extent) * math.prod(taps) * self.channels_in))
        for start in range(0, rows, at_once):
            folded = self._through_taps(y[start : start + at_once])
            for number, tap in enumerate(np.ndindex(*taps)):
                window = self._read_by(tap, tuple(extent))
                result[(slice(start, start + at_once), *window)] += folded[..., number, :]
        return result

    def _through_taps(self, y: FloatArray) -> FloatArray:
        """Return what each output hands to each tap of each input channel: (R, *extent, taps, channels in)."""
        taps = math.prod(self.kernel.shape[2:])
        if self.groups == 1:
            each = product(y.reshape(-1, self.channels_out), self.kernel_rows[0])
            return each.reshape(*y.shape[:-1], taps, self.channels_in)
        grouped = y.reshape(-1, self.groups, self.channels_out // self.groups).transpose(1, 0, 2)
        each = product(grouped, self.kernel_rows).reshape(self.groups, -1, taps, self.kernel.shape[1])
        return np.asarray(each.transpose(1, 2, 0, 3).reshape(*y.shape[:-1], taps, self.channels_in))

    @cached_property
    def kernel_rows(self) -> FloatArray:
        """The kernel as (groups, out channels of a group, taps * in channels of a group)."""
        per_group = self.channels_out // self.groups
        rows = np.moveaxis(self.kernel.reshape(self.groups, per_group, self.kernel.shape[1], -1), 2, 3)
        return np.ascontiguousarray(rows.reshape(self.groups, per_group, -1))

    @property
    def unread(self) -> tuple[int, ...]:
        """How many entries at the end of each padded axis no window reaches."""
        return tuple(
            (size + self.pads[a] + self.pads[self.rank + a] - self.dilations[a] * (self.kernel.shape[2 + a] - 1) - 1)
            % self.strides[a]
            for a, size in enumerate(self.spatial_in)
        )

    def absolute(self) -> Convolution:
        """Return |W|: the convolution with |kernel|, since every tap meets another input."""
        return replace(self, kernel=np.abs(self.kernel), relative=0.0, slack=None)

    def scale_channels(self, rows: FloatArray | None, columns: FloatArray | None) -> Convolution:
        """Return diag(rows per output channel) W diag(columns per input channel)."""
        kernel = self.kernel
        tail = (1,) * (self.rank + 1)
        if rows is not None:
            kernel = kernel * rows.reshape(-1, *tail)
        if columns is not None:
            per_group = columns.reshape(self.groups, 1, -1, *(1,) * self.rank)
            shape = (self.groups, -1, *self.kernel.shape[1:])
            kernel = (kernel.reshape(shape) * per_group).reshape(self.kernel.shape)
        return replace(self, kernel=kernel, relative=0.0, slack=None)

    def to_sparse(self) -> sp.csr_array:
        """Return W in CSR form; every output channel of a group repeats one pattern of column indices."""
        taps_per_row, columns, taps = self._pattern()
        per_group = self.channels_out // self.groups
        n_columns = columns.size
        weights = self.kernel.reshape(self.channels_out, -1)
        indices = np.empty((self.channels_out, n_columns), dtype=np.int32 if self.n_in < 2**31 else np.int64)
        for group in range(self.groups):
            rows = slice(group * per_group, (group + 1) * per_group)
            indices[rows] = columns + group * int(self.kernel.shape[1]) * math.prod(self.spatial_in)
        indptr = np.concatenate([[0], np.cumsum(np.tile(taps_per_row, self.channels_out))])
        if indptr[-1] < 2**31:
            indptr = indptr.astype(indices.dtype)
        data = weights[:, taps].reshape(-1)
        return sp.csr_array((data, indices.reshape(-1), indptr), shape=(self.n_out, self.n_in))

    def _pattern(self) -> tuple[IntArray, IntArray, IntArray]:
        """Return (entries a row, column of each entry, tap of each entry) for one output channel of the first group."""
        position = np.zeros((1, 1), dtype=np.int64)
        inside = np.ones((1, 1), dtype=np.bool_)
        for axis in range(self.rank):
            here, valid = self._axis_taps(axis)
            shape = (position.shape[0] * here.shape[0], position.shape[1] * here.shape[1])
            flat = position[:, None, :, None] * self.spatial_in[axis] + here[None, :, None, :]
            position = flat.reshape(shape)
            inside = (inside[:, None, :, None] & valid[None, :, None, :]).reshape(shape)
        n_pixels, n_taps = position.shape
        n_channels = int(self.kernel.shape[1])
        offsets = (np.arange(n_channels) * math.prod(self.spatial_in))[None, :, None]
        columns = np.broadcast_to(position[:, None, :] + offsets, (n_pixels, n_channels, n_taps))
        taps = np.broadcast_to(np.arange(n_channels * n_taps).reshape(1, n_channels, n_taps), columns.shape)
        used = np.broadcast_to(inside[:, None, :], columns.shape)
        return inside.sum(axis=1) * n_channels, columns[used], taps[used]


@lru_cache(maxsize=64)
def _small_window(convolution: Convolution, extent: tuple[int, ...]) -> tuple[FloatArray, tuple[int, ...]] | None:
    """Return W^T for a small window as one matrix, which is faster than folding, and the shape of what it makes."""
    entries = math.prod(extent) * convolution.channels_out
    taps = zip(extent, convolution.strides, convolution.dilations, convolution.kernel.shape[2:], strict=True)
    made = math.prod((e - 1) * s + d * (n - 1) + 1 for e, s, d, n in taps) * convolution.channels_in
    if entries * made > SMALL_WINDOW:
        return None
    matrix = convolution._folded(np.eye(entries).reshape(entries, *extent, convolution.channels_out))
    return matrix.reshape(entries, -1), matrix.shape[1:]


@dataclass(frozen=True, eq=False, kw_only=True)
class TransposedConvolution(LinearMap):
    """W^T of a convolution W: ConvTranspose, and nothing else."""

    forward: Convolution

    @property
    def n_in(self) -> int:
        """Length of the convolution's output."""
        return self.forward.n_out

    @property
    def n_out(self) -> int:
        """Length of the convolution's input."""
        return self.forward.n_in

    @property
    def nnz(self) -> int:
        """As many as the convolution has."""
        return self.forward.nnz

    @property
    def row_terms(self) -> int:
        """The convolution's column terms."""
        return self.forward.column_terms

    @property
    def column_terms(self) -> int:
        """The convolution's row terms."""
        return self.forward.row_terms

    def apply(self, x: FloatArray) -> FloatArray:
        """Return W^T x for each row of x."""
        return self.forward.adjoint(x)

    def adjoint(self, y: FloatArray) -> FloatArray:
        """Return W y for each row of y."""
        return self.forward.apply(y)

    def absolute(self) -> TransposedConvolution:
        """Return |W^T|."""
        return TransposedConvolution(forward=self.forward.absolute())

    def to_sparse(self) -> sp.csr_array:
        """Return W^T in CSR form."""
        result = sp.csr_array(self.forward.to_sparse().T)
        result.sort_indices()
        return result
