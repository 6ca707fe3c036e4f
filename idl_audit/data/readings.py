"""The usual ways to read samples: scale, mean and standard deviation, order of axes, order of colours, first label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.samples import Layout
from idl_audit.values.arrays import Float32Array, FloatArray

USUAL: Final[tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]] = (
    ((), ()),
    ((0.5,), (0.5,)),
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ((0.1307,), (0.3081,)),
    ((0.2860,), (0.3530,)),
)
"""Mean and standard deviation of numbers in [0, 1]: none, halves, ImageNet, CIFAR-10 twice, MNIST, Fashion-MNIST."""


@dataclass(frozen=True)
class Reading:
    """One way to read the samples; the defaults are the user's own."""

    preprocessing: Preprocessing
    options: str | None = None
    """The options that give this preprocessing; None where it is the user's own."""
    other_layout: str | None = None
    """The --layout that is tried, nhwc or native, where it is not the user's own."""
    reversed_colours: bool = False
    first_label: int = 0

    @property
    def advice(self) -> str:
        """What the user would have to do."""
        options = [self.options or "", f"--layout {self.other_layout}" if self.other_layout else ""]
        data = ["the colours in reverse order" if self.reversed_colours else ""]
        data.append("labels that count from 0 (subtract 1 from each)" if self.first_label else "")
        return " with ".join(filter(None, [" ".join(filter(None, options)), *data]))

    def apply(self, inputs: FloatArray, input_shape: tuple[int, ...]) -> Float32Array:
        """Return what the network would read, (n, p) -> (n, p)."""
        if self.other_layout is not None:
            inputs = _transposed(inputs, input_shape, to_native=self.other_layout == "native")
        if self.reversed_colours:
            images = inputs.reshape(-1, *input_shape[1:])
            inputs = images[:, ::-1].reshape(inputs.shape)
        return self.preprocessing.apply(inputs, input_shape)


def _transposed(inputs: FloatArray, input_shape: tuple[int, ...], *, to_native: bool) -> FloatArray:
    """Read rows in the model's order as (H, W, C), or take that back where the user asked for it."""
    _, channels, height, width = input_shape
    if to_native:
        images = inputs.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    else:
        images = inputs.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    return images.reshape(inputs.shape)


def readings(
    given: Preprocessing, layout: Layout, input_shape: tuple[int, ...], *, bytes_like: bool
) -> Iterator[Reading]:
    """Yield the usual readings, the user's own first, then those that change least."""
    own = Reading(given)
    others = [own, *_preprocessings(given, input_shape, bytes_like=bytes_like)]
    arrangements: list[tuple[str | None, bool]] = [(None, False)]
    if len(input_shape) == 4 and input_shape[0] == 1 and input_shape[1] > 1:
        other = "native" if layout == "nhwc" else "nhwc" if layout == "native" else None
        colours = (False, True) if input_shape[1] == 3 else (False,)
        arrangements = [(way, flip) for flip in colours for way in dict.fromkeys((None, other))]
    for way, flip in arrangements:
        for reading in others:
            yield replace(reading, other_layout=way, reversed_colours=flip)


def _preprocessings(given: Preprocessing, input_shape: tuple[int, ...], *, bytes_like: bool) -> Iterator[Reading]:
    """Yield every usual scale with every usual mean and standard deviation that the channels allow."""
    channels = input_shape[1] if len(input_shape) == 4 else 0
    scales = (1.0, 1 / 255) if bytes_like else (1.0, 255.0)
    for mean, std in USUAL:
        if len(mean) > 1 and len(mean) != channels:
            continue
        for scale in scales:
            if mean and scale != (1 / 255 if bytes_like else 1.0):
                continue  # these means are of numbers in [0, 1]
            tried = Preprocessing(scale=scale, mean=mean, std=std, bounds=given.bounds)
            if (tried.scale, tried.mean, tried.std) != (given.scale, given.mean, given.std):
                yield Reading(tried, _options(tried))


def _options(chosen: Preprocessing) -> str:
    parts = []
    if chosen.scale != 1:
        parts.append("--scale 1/255" if chosen.scale < 1 else f"--scale {chosen.scale:g}")
    for name, values in (("--mean", chosen.mean), ("--std", chosen.std)):
        if values:
            parts.append(f"{name} {','.join(f'{value:g}' for value in values)}")
    return " ".join(parts) or "--scale 1 without --mean and --std"
