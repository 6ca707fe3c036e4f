"""From the user's numbers to the network's own input: z = (u scale - mean) / std."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idl_audit.data.numbers import parse_bounds, parse_number, parse_number_list
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.options import Reader, option

if TYPE_CHECKING:  # options are declared here, and who reads a configuration does not wait for numpy
    from collections.abc import Sequence
    from fractions import Fraction

    from idl_audit.values.arrays import Float32Array, FloatArray

SMALLEST, LARGEST = 1e-100, 1e100
"""Of what inputs are multiplied by, and of what is added to them."""

_NUMBERS = Reader(lambda text, flag: parse_number_list(text, option=flag))


@dataclass(frozen=True)
class Preprocessing:
    """The network's input is (u * scale - mean) / std, where u is in data units (the user's own numbers).

    `mean` and `std` hold nothing (0 and 1), one number for all inputs, one per channel, or one per input; they are in
    units of u * scale. `bounds` is the valid range (lo, hi) of u in data units, None where it is not known.
    """

    scale: float = option(
        1.0,
        Reader(lambda text, flag: parse_number(text, option=flag)),
        "The network reads (data * SCALE - MEAN) / STD; 1/255 for bytes.",
        metavar="SCALE",
        panel="Data",
    )
    mean: tuple[float, ...] = option(
        (), _NUMBERS, "One number, or one for each channel: 0.485,0.456,0.406.", metavar="MEAN", panel="Data"
    )
    std: tuple[float, ...] = option((), _NUMBERS, "Like --mean.", metavar="STD", panel="Data")
    bounds: tuple[float, float] | None = option(
        None,
        Reader(lambda text, _: parse_bounds(text)),
        "Valid range of the data; perturbed inputs stay within it: 0,1.",
        metavar="LO,HI",
        rank=-7,
    )

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale != 0):
            raise OptionError(
                f"--scale must be a finite number other than 0, not {self.scale}; write for example 1/255"
            )
        if not all(math.isfinite(value) for value in self.mean):
            raise OptionError(f"--mean must hold finite numbers, not {_listed(self.mean)}")
        if not all(math.isfinite(value) and value > 0 for value in self.std):
            raise OptionError(f"--std must hold finite numbers above zero, not {_listed(self.std)}")
        if self.bounds is not None:
            lo, hi = self.bounds
            if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
                raise OptionError(f"--bounds needs finite LO,HI with LO < HI, not {lo:g},{hi:g}")

    @property
    def is_identity(self) -> bool:
        """Whether the network takes the user's numbers as they are; `bounds` has no part in it."""
        return self.scale == 1 and all(m == 0 for m in self.mean) and all(s == 1 for s in self.std)

    def affine(self, input_shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        """Return (factor, offset), float64 vectors of length p: the network's input is factor * u + offset.

        factor = scale / std and offset = -mean / std, each rounded once.

        Raises:
            OptionError: where mean or std fit neither the channels nor the inputs of `input_shape`, or a quotient is
                beyond 1e100 or, other than 0, below 1e-100.
        """
        import numpy as np

        mean, std = self._per_input(input_shape)
        with np.errstate(over="ignore"):
            factor, offset = self.scale / std, -mean / std + 0.0  # + 0.0 turns -0.0 into 0.0
        for what, values, of in (("--scale", factor, factor), ("--mean", offset, mean)):
            sizes = np.abs(values[of != 0])
            if not ((sizes >= SMALLEST) & (sizes <= LARGEST)).all():
                raise OptionError(
                    f"{what} divided by --std is beyond {LARGEST:g} or below {SMALLEST:g}, where float64 loses its "
                    "digits; give numbers of ordinary size"
                )
        return factor, offset

    def reach(
        self, eps: float, input_shape: tuple[int, ...]
    ) -> tuple[FloatArray, tuple[FloatArray, FloatArray] | None]:
        """Return what a change by eps and the valid range are for the network: eps |factor|, and both ends, (p,) each.

        Raises:
            OptionError: as `affine`.
        """
        import numpy as np

        factor, offset = self.affine(input_shape)
        valid = None
        if self.bounds is not None:
            ends = [factor * end + offset for end in self.bounds]
            valid = (np.minimum(*ends), np.maximum(*ends))
        return eps * np.abs(factor), valid

    def apply(self, inputs: FloatArray, input_shape: tuple[int, ...]) -> Float32Array:
        """Return (inputs * scale - mean) / std in the shape of `inputs`, (..., p).

        Computed in float64 and rounded to float32 once. A pipeline that works in float32 throughout can differ from
        this in the last digits.

        Raises:
            OptionError: where mean or std do not fit `input_shape`.
            DataError: where a result lies outside float32's range.
        """
        import numpy as np

        mean, std = self._per_input(input_shape)
        with np.errstate(over="ignore", invalid="ignore"):
            result = ((inputs * self.scale - mean) / std).astype(np.float32)
        if not np.isfinite(result).all():
            sample = int(np.flatnonzero(~np.isfinite(result.reshape(-1, mean.size)).all(axis=1))[0])
            raise DataError(
                f"row {sample} of the inputs leaves the range of float32 after preprocessing; "
                "check the data and --scale, --mean and --std"
            )
        return result

    def exactly(self, point: Sequence[Fraction], input_shape: tuple[int, ...]) -> tuple[Fraction, ...]:
        """Return (u scale - mean) / std for one exact point, (p,), without rounding."""
        from fractions import Fraction

        mean, std = ([Fraction(value) for value in each.tolist()] for each in self._per_input(input_shape))
        scale = Fraction(self.scale)
        return tuple((u * scale - m) / s for u, m, s in zip(point, mean, std, strict=True))

    def _per_input(self, input_shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        return _spread(self.mean or (0.0,), input_shape, "--mean"), _spread(self.std or (1.0,), input_shape, "--std")


def channel_axis(input_shape: tuple[int, ...]) -> int:
    """Return the axis of the channels: 1 after a leading batch axis of length 1, otherwise 0."""
    return 1 if len(input_shape) >= 2 and input_shape[0] == 1 else 0


def _spread(values: tuple[float, ...], input_shape: tuple[int, ...], option: str) -> FloatArray:
    """Return one value per input, a flat vector of length p, from one value, one per channel or one per input."""
    import numpy as np

    size = math.prod(input_shape)
    axis = channel_axis(input_shape)
    channels = input_shape[axis] if input_shape else 1
    given = np.array(values, np.float64)
    if given.size == 1:
        return np.full(size, given[0])
    if given.size == channels:
        along = [-1 if other == axis else 1 for other in range(len(input_shape))]
        return np.broadcast_to(given.reshape(along), input_shape).ravel()
    if given.size == size:
        return given
    wanted = f"one per channel ({channels})" if channels != 1 else f"one per input ({size})"
    raise OptionError(
        f"{option} has {given.size} numbers, but the model's input has shape {input_shape}; "
        f"give one number, or {wanted}"
    )


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
