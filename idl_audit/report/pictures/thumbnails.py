"""Small pictures, one pixel an input: a page enlarges them. PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from idl_audit.report.input_maps import as_image, channels_last, in_blocks
from idl_audit.values.arrays import FloatArray

LARGEST_SIDE = 96
"""Larger images are reduced to it: means of squares of pixels."""

FAINTEST = 0.3
"""Opacity of the smallest change; what does not change is not there at all."""
HIGHER, LOWER = (214, 32, 40), (38, 107, 214)
"""Red where an input rises, blue where it falls."""


def image_png(values: FloatArray, shape: Sequence[int], limits: tuple[float, float]) -> bytes:
    """Return the image with values per input, shape (p,), in colour where it has three channels.

    `limits` are what is black and what is white.
    """
    low, high = limits
    image = _reduced(channels_last(values, shape))
    shade = np.clip((image - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    grey = shade if shade.shape[2] == 3 else np.repeat(shade.mean(axis=2, keepdims=True), 3, axis=2)
    return _png(np.round(255 * grey).astype(np.uint8))


def change_png(change: FloatArray, shape: Sequence[int]) -> bytes:
    """Return where inputs change, shape (p,), and which way: red where they rise, blue where they fall.

    The colour is the stronger the larger the change, and transparent where nothing changes. Of the channels of a pixel
    the one that changes most counts; of the pixels that one stands for, their mean.
    """
    mean = _reduced(strongest(channels_last(change, shape))[:, :, None])[:, :, 0]
    size = np.abs(mean)
    share = size / (float(size.max()) or 1.0)
    alpha = np.where(size > 0, FAINTEST + (1 - FAINTEST) * share, 0.0)
    pixels = np.zeros((*size.shape, 4))
    pixels[..., :3], pixels[..., 3] = np.where(mean[..., None] > 0, HIGHER, LOWER), 255 * alpha
    return _png(np.round(pixels).astype(np.uint8))


def strongest(change: FloatArray) -> FloatArray:
    """Return of each pixel, shape (height, width, channels), the change of the channel that changes most."""
    most = np.abs(change).argmax(axis=2)
    return np.asarray(np.take_along_axis(change, most[:, :, None], axis=2)[:, :, 0])


def heat_png(values: FloatArray, shape: Sequence[int], largest: float, *, is_map: bool = False) -> bytes:
    """Return values per input, shape (p,) and at least 0, on the scale of the heat maps, 0 to `largest`.

    With `is_map` the values are those of a map of this (height, width), even one of a single row.
    """
    from matplotlib import colormaps

    image = values.reshape(shape[0], shape[1]) if is_map else _heat(values, shape)
    top = largest if largest > 0 else 1.0
    return _png(np.round(255 * colormaps["magma"](image / top)[..., :3]).astype(np.uint8))


def largest_pixel(rows: FloatArray, shape: Sequence[int]) -> float:
    """Return the largest value of the heat maps of all rows, shape (q, p)."""
    return max((float(_heat(row, shape).max()) for row in rows), default=0.0)


def _heat(values: FloatArray, shape: Sequence[int]) -> FloatArray:
    image = as_image(values, shape)
    return in_blocks(image, -(-max(image.shape) // LARGEST_SIDE))


def _reduced(image: FloatArray) -> FloatArray:
    """Return the image with sides of LARGEST_SIDE at most."""
    side = -(-max(image.shape[:2]) // LARGEST_SIDE)
    if side <= 1:
        return image
    rows, columns = (np.arange(0, extent, side) for extent in image.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(image, rows, axis=0), columns, axis=1)
    counts = np.outer(np.diff([*rows, image.shape[0]]), np.diff([*columns, image.shape[1]]))
    return np.asarray(sums / counts[:, :, None])


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    from matplotlib.image import imsave

    stream = io.BytesIO()
    imsave(stream, pixels, format="png", metadata={"Software": "idl-audit"}, pil_kwargs={"optimize": True})
    return stream.getvalue()
