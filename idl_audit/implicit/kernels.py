"""What a computed function may be off by: proved where it is correctly rounded, measured where a library computes it.

The table of measured errors is written by `benchmarks/kernel_errors.py` (reports/kernels.md tells what was measured,
and with which versions). It is evidence, no proof, and so proofs take twice what was seen where every float32 number
within 2^-DENSE and 2^DENSE was tried, and four times where it was every so-many-th.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.implicit.activations import Activation
from idl_audit.implicit.activations.contraction import Contraction
from idl_audit.implicit.activations.normalised import Normalised
from idl_audit.implicit.activations.softmax import Softmax
from idl_audit.implicit.kernel_table import DENSE, MEASURED, VERSIONS
from idl_audit.values.arrays import FloatArray


@dataclass(frozen=True)
class Arithmetic:
    """A floating-point format: round to nearest, subnormal numbers possibly flushed to 0."""

    name: str
    unit: float
    """u: a result differs from the exact one by u of its size at most."""
    smallest: float
    """The smallest normal number."""
    largest: float
    """Numbers below this are finite, and so are they after one more rounding."""


FLOAT32: Final = Arithmetic("float32", 2.0**-24, 2.0**-126, 2.0**127)
FLOAT64: Final = Arithmetic("float64", 2.0**-53, 2.0**-1022, 2.0**1000)


@dataclass(frozen=True)
class Kernel:
    """What a computed function may be off by at a computed z: at most absolute + relative |z| + of_value |phi(z)|."""

    absolute: float = 0.0
    relative: float | FloatArray = 0.0
    of_value: float = 0.0
    of_terms: float = 0.0
    """Of a sum of products of states, besides: at most this share of the sum of the products' sizes."""
    of_group: float = 0.0
    """Of a norm, besides: gamma_N of its mean and its mean square, as a share of the sizes that they are made of."""
    within: float = math.inf
    """Nothing is known where |z| or |phi(z)| is not below this."""
    measured: str = ""
    """Its entry in the table; empty where nothing was measured."""


EXACT: Final = Kernel()
KernelOf: TypeAlias = Callable[[Activation], Kernel]

RECURRENT: Final = "recurrent "
"""Before the names of activations that recurrent layers compute with kernels of their own."""

SPARE: Final = 4
"""Roundings beside those of the products and sums: of alpha and beta, of a bias, of a reciprocal in a division's place,
of a constant that a runtime has multiplied into another one."""

DOUBT: Final = 2.0
"""Times what was measured of every float32 number, where it counts."""
DOUBT_OF_SAMPLES: Final = 4.0
"""Times what was measured of some of them."""


def measured(name: str) -> Kernel:
    """Return what proofs take for a function of the table."""
    found = MEASURED[name]
    doubt = DOUBT if found.dense >= DENSE else DOUBT_OF_SAMPLES
    return Kernel(
        doubt * found.absolute, doubt * found.relative, doubt * found.of_value, within=found.within, measured=name
    )


def kernel_of(activation: Activation) -> Kernel | None:
    """Return what a computed activation may be off by; None where nothing is known."""
    if activation.name in OF_ACTIVATIONS:
        return OF_ACTIVATIONS[activation.name](activation)
    name = activation.name
    if name == "power":
        exponent = activation.parameters["exponent"]
        name = f"power {exponent:g}" if float(f"{exponent:g}") == exponent else name
    return measured(name) if name in MEASURED else None


def kernel_in_layer(activation: Activation) -> Kernel | None:
    """Return what an activation of a recurrent layer may be off by: layers compute some with kernels of their own."""
    if activation.name in _ALIKE_IN_LAYERS:
        return kernel_of(activation)
    name = f"{RECURRENT}{activation.name}"
    if activation.name == "elu":
        return _exponential(activation, name)
    return measured(name) if name in MEASURED else None


_ALIKE_IN_LAYERS: Final = frozenset({"identity", "relu", "leaky_relu", "product"})
"""Activations without a library's function: what bounds them does so everywhere."""


def kernel_of_norm(activation: Activation) -> Kernel | None:
    """Return what (z - mean) / sqrt(mean square + eps) may be off by, however a runtime makes its mean square.

    None for what is no norm, and for norms with something beside the root, or a least divisor.
    """
    if not isinstance(activation, Normalised) or activation.beside or activation.least:
        return None
    if activation.n < 2 or activation.count != activation.n or not activation.under > 0:
        return None
    share = (activation.n + 3 * SPARE) * FLOAT32.unit
    return Kernel(of_group=share / (1 - share)) if share < 0.5 else None


def _exact(activation: Activation) -> Kernel:
    return EXACT


def _one_product(activation: Activation) -> Kernel:
    """A product with alpha below 0."""
    steep = max(1.0, float(np.max(activation.lipschitz)))
    return Kernel(4 * FLOAT32.smallest * (1 + steep), 2 * FLOAT32.unit * steep)


def _exponential(activation: Activation, name: str = "elu") -> Kernel:
    """gamma (z, or alpha (exp(z) - 1)): the error of ELU with alpha = 1, and two products."""
    one, steep = measured(name), max(1.0, float(np.max(activation.lipschitz)))
    return Kernel(
        steep * (one.absolute + 4 * FLOAT32.unit),
        steep * (float(one.relative) + 4 * FLOAT32.unit),
        within=one.within,
        measured=name,
    )


def _celu(activation: Activation) -> Kernel:
    """z, or alpha (exp(z / alpha) - 1): alpha times the error of ELU, and a division, which moves alpha exp by |z|."""
    one, alpha = measured("elu"), float(np.max(activation.parameters["alpha"]))
    return Kernel(
        max(1.0, alpha) * (one.absolute + 4 * FLOAT32.unit),
        float(one.relative) + 4 * FLOAT32.unit,
        within=one.within,
        measured="elu",
    )


def _softmax(activation: Activation) -> Kernel:
    """u (.37 + (n + 2 + ln n) x) + 2 rho x + n 2^-126 with x <= 1, rho the relative error of exp, times 2."""
    assert isinstance(activation, Softmax)
    n = activation.width
    return Kernel(FLOAT32.unit * (3 + n + math.log(n)) * 1.01 + 4 * FLOAT32.unit * 2 + n * FLOAT32.smallest)


def _contraction(activation: Activation) -> Kernel:
    assert isinstance(activation, Contraction)
    return kernel_of_products(activation)


def kernel_of_products(activation: Contraction, spare: int = SPARE) -> Kernel:
    """gamma_N of the products' sizes, N the number of terms, a product, and factors before and behind."""
    share = (activation.inner + spare) * FLOAT32.unit
    if share >= 0.5:
        return Kernel(math.inf)
    return Kernel(absolute=2 * activation.inner * FLOAT32.smallest, of_terms=share / (1 - share))


OF_ACTIVATIONS: Final[Mapping[str, KernelOf]] = MappingProxyType(
    {
        **dict.fromkeys(("identity", "relu", "abs"), _exact),
        **dict.fromkeys(("ceil", "floor", "round", "step"), _exact),
        "leaky_relu": _one_product,
        "elu": _exponential,
        "selu": _exponential,
        "celu": _celu,
        "softmax": _softmax,
        "contraction": _contraction,
        "product": lambda activation: Kernel(of_value=FLOAT32.unit),
    }
)
"""Activation -> its error, where that is proved, or made of that of another one; others are looked up as they are."""


def other_versions() -> tuple[tuple[str, str, str], ...]:
    """Return (library, measured, installed) for those of which another major or minor version is installed."""
    found = []
    for name, version in VERSIONS.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if _minor(installed) != _minor(version):
            found.append((name, _minor(version), _minor(installed)))
    return tuple(found)


def _minor(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[:2])
