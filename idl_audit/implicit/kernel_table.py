"""Measured errors of float32 kernels (reports/kernels.md), by benchmarks/kernel_errors.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

VERSIONS: Final[Mapping[str, str]] = MappingProxyType({"onnxruntime": "1.31.1", "torch": "2.13.0+cpu"})
"""Of the libraries whose kernels were measured."""

DENSE: Final = 16
"""A function is known well where every float32 number from 2^-k to 2^k was tried, for this k."""


@dataclass(frozen=True)
class Measured:
    """|computed - exact| <= absolute + relative |z| + of_value |phi(z)|, as far as it was seen."""

    absolute: float
    relative: float
    of_value: float
    within: float
    """Where |z| and |phi(z)| are below this."""
    dense: int
    """Every float32 number with 2^-dense <= |z| < 2^dense was tried, beyond that every so-many-th."""


MEASURED: Final[Mapping[str, Measured]] = MappingProxyType(
    {
        "acos": Measured(1.18e-38, 0.0, 3.02e-07, 2.0**127, 128),
        "acosh": Measured(1.18e-38, 0.0, 1.3e-07, 2.0**127, 128),
        "asin": Measured(1.18e-38, 0.0, 5.08e-07, 2.0**127, 128),
        "asinh": Measured(1.18e-38, 0.0, 1.37e-07, 2.0**127, 128),
        "atan": Measured(1.18e-38, 0.0, 2.91e-07, 2.0**127, 128),
        "atanh": Measured(1.18e-38, 0.0, 1.35e-07, 2.0**127, 128),
        "celu": Measured(6.88e-08, 0.0, 0.0, 2.0**127, 128),
        "cos": Measured(1.18e-38, 0.0, 1.77e-07, 2.0**127, 128),
        "cosh": Measured(1.18e-38, 0.0, 1.2e-07, 2.0**127, 128),
        "elu": Measured(6.88e-08, 0.0, 0.0, 2.0**127, 128),
        "erf": Measured(1.18e-38, 0.0, 8.35e-08, 2.0**127, 128),
        "exp": Measured(8.62e-36, 0.0, 7.63e-08, 2.0**127, 128),
        "gelu": Measured(1.18e-38, 3.02e-07, 0.0, 2.0**127, 128),
        "gelu_tanh": Measured(1.18e-38, 2.1e-07, 0.0, 2.0**127, 128),
        "hard_swish": Measured(1.18e-38, 3.48e-08, 1.49e-07, 2.0**125, 128),
        "log": Measured(1.18e-38, 0.0, 2.61e-07, 2.0**127, 128),
        "mish": Measured(2.63e-33, 0.0, 5.47e-07, 2.0**127, 128),
        "power -0.75": Measured(1.18e-38, 0.0, 5.97e-08, 2.0**127, 128),
        "power -1.5": Measured(1.18e-38, 0.0, 5.97e-08, 2.0**127, 128),
        "power -2": Measured(1.18e-38, 0.0, 1.49e-07, 2.0**127, 128),
        "power -3": Measured(1.18e-38, 0.0, 5.97e-08, 2.0**127, 128),
        "power 0.25": Measured(1.18e-38, 0.0, 5.97e-08, 2.0**127, 128),
        "power 0.75": Measured(1.18e-38, 0.0, 5.97e-08, 2.0**127, 128),
        "power 1.5": Measured(1.18e-38, 0.0, 5.97e-08, 2.0**127, 128),
        "power 2.5": Measured(1.18e-38, 0.0, 5.97e-08, 2.0**127, 128),
        "power 3": Measured(1.18e-38, 0.0, 1.18e-07, 2.0**127, 128),
        "power 4": Measured(8.2e-34, 0.0, 5.96e-08, 2.0**127, 128),
        "power 5": Measured(1.18e-38, 0.0, 5.96e-08, 2.0**127, 128),
        "power 6": Measured(1.8e-33, 0.0, 5.96e-08, 2.0**127, 128),
        "reciprocal": Measured(1.18e-38, 0.0, 5.97e-08, 2.0**127, 128),
        "recurrent elu": Measured(6.69e-08, 0.0, 0.0, 2.0**127, 0),
        "recurrent sigmoid": Measured(1.6e-07, 2.51e-08, 0.0, 2.0**127, 128),
        "recurrent softplus": Measured(1.51e-07, 0.0, 9.67e-08, 2.0**6, 0),
        "recurrent softsign": Measured(1.78e-10, 0.0, 1.38e-07, 2.0**127, 0),
        "recurrent tanh": Measured(1.29e-07, 0.0, 6.02e-07, 2.0**127, 128),
        "rsqrt": Measured(1.18e-38, 0.0, 8.95e-08, 2.0**127, 128),
        "selu": Measured(1.63e-07, 0.0, 5.96e-08, 2.0**127, 128),
        "sigmoid": Measured(1.78e-07, 0.0, 0.0, 2.0**127, 128),
        "silu": Measured(1.18e-38, 2.08e-07, 0.0, 2.0**127, 128),
        "sin": Measured(1.18e-38, 0.0, 1.76e-07, 2.0**127, 128),
        "sinh": Measured(1.18e-38, 0.0, 1.43e-07, 2.0**127, 128),
        "softplus": Measured(1.36e-35, 0.0, 3.48e-07, 2.0**127, 128),
        "softsign": Measured(1.18e-38, 0.0, 1.48e-07, 2.0**127, 128),
        "sqrt": Measured(1.18e-38, 0.0, 8.94e-08, 2.0**127, 128),
        "square": Measured(1.18e-38, 0.0, 5.96e-08, 2.0**127, 128),
        "tan": Measured(1.18e-38, 0.0, 9.27e-08, 2.0**127, 128),
        "tanh": Measured(1.18e-38, 0.0, 3.26e-07, 2.0**127, 128),
    }
)
"""Activation -> the greatest errors, over all forms in which it is computed."""
