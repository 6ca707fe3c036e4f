"""What a computed function may be off by: proved where it is correctly rounded, measured where a library computes it.

The table of measured errors is written by `benchmarks/kernel_errors.py` (reports/kernels.md tells what was measured,
and with which versions). It is evidence, no proof, and so proofs take twice what was seen where every float32 number
within 2^-DENSE and 2^DENSE was tried, and four times where it was every so-many-th. Of floats with 16 bits every number
was tried, in chains that round every step as well (`benchmarks/half_kernels.py`, reports/half_kernels.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.graph.ir import Scalars
from idl_audit.implicit.activations import Activation
from idl_audit.implicit.activations.contraction import Contraction
from idl_audit.implicit.activations.normalised import Normalised
from idl_audit.implicit.activations.softmax import Softmax
from idl_audit.implicit.half_kernel_table import MEASURED_OF_HALF
from idl_audit.implicit.kernel_table import DENSE, MEASURED, VERSIONS
from idl_audit.values.arrays import FloatArray


@dataclass(frozen=True)
class Arithmetic:
    """A floating-point format: round to nearest, subnormal numbers possibly flushed to 0 unless it has 16 bits.

    In formats of 16 bits products are summed up in accumulators of float32 or finer ones, and what an operator gives,
    or is made of, is rounded to the format or not.
    """

    name: str
    unit: float
    """u: a result differs from the exact one by u of its size at most."""
    smallest: float
    """What is lost at most, besides, where a number is subnormal."""
    largest: float
    """Numbers below this are finite, and so are they after one more rounding."""
    accumulator: float
    """u of the numbers that sums of products are made in."""

    def gamma(self, terms: int, spare: int = 0) -> float:
        """Return g with |computed - exact| <= g (sum of sizes), infinite where nothing is known.

        (1 + g1)(1 + g2) - 1, g1 = n a / (1 - n a) of n roundings in accumulators, g2 of those in the format likewise.
        """
        if self.accumulator == self.unit:
            return _gamma((terms + spare) * self.unit)
        first, second = _gamma(terms * self.accumulator), _gamma(spare * self.unit)
        return first + second + first * second if max(first, second) < math.inf else math.inf


def _gamma(share: float) -> float:
    return share / (1 - share) if share < 0.5 else math.inf


FLOAT32: Final = Arithmetic("float32", 2.0**-24, 2.0**-126, 2.0**127, 2.0**-24)
FLOAT64: Final = Arithmetic("float64", 2.0**-53, 2.0**-1022, 2.0**1000, 2.0**-53)
FLOAT16: Final = Arithmetic("float16", 2.0**-11, 2.0**-24, 2.0**15, 2.0**-24)
BFLOAT16: Final = Arithmetic("bfloat16", 2.0**-8, 2.0**-126, 2.0**127, 2.0**-24)
ARITHMETICS: Final[Mapping[str, Arithmetic]] = MappingProxyType(
    {one.name: one for one in (FLOAT64, FLOAT32, FLOAT16, BFLOAT16)}
)
"""Those of networks, from the finest to the coarsest."""


def coarsest(names: Iterable[str]) -> Arithmetic:
    """Return one whose bounds hold for numbers of every one of these types; float32 where none is a type of floats."""
    found = [one for name, one in ARITHMETICS.items() if name in set(names)]
    if not found:
        return FLOAT32
    return replace(found[-1], smallest=max(one.smallest for one in found), largest=min(one.largest for one in found))


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
KernelOf: TypeAlias = Callable[[Activation, Arithmetic], Kernel]

RECURRENT: Final = "recurrent "
"""Before the names of activations that recurrent layers compute with kernels of their own."""

SPARE: Final = 4
"""Roundings beside those of the products and sums: of alpha and beta, of a bias, of a reciprocal in a division's place,
of a constant that a runtime has multiplied into another one."""

DOUBT: Final = 2.0
"""Times what was measured of every float32 number, where it counts."""
DOUBT_OF_SAMPLES: Final = 4.0
"""Times what was measured of some of them."""


def measured(name: str, arithmetic: Arithmetic = FLOAT32) -> Kernel:
    """Return what proofs take for a function of the table; float64 kernels are no worse than those of float32.

    Of 16-bit floats it is twice what their own numbers show, and what float32 numbers do: a runtime may hand on what it
    has not rounded.
    """
    found = MEASURED[name]
    doubt = DOUBT if found.dense >= DENSE else DOUBT_OF_SAMPLES
    kernel = Kernel(
        doubt * found.absolute, doubt * found.relative, doubt * found.of_value, within=found.within, measured=name
    )
    if arithmetic.name not in MEASURED_OF_HALF:
        return kernel
    half = MEASURED_OF_HALF[arithmetic.name][name]
    return replace(
        kernel,
        absolute=DOUBT * half.absolute + kernel.absolute,
        relative=DOUBT * half.relative + kernel.relative,
        of_value=DOUBT * half.of_value + kernel.of_value,
        within=min(half.within, kernel.within),
    )


def kernel_of(activation: Activation, arithmetic: Arithmetic = FLOAT32) -> Kernel | None:
    """Return what a computed activation may be off by; None where nothing is known."""
    if activation.name in OF_ACTIVATIONS:
        return OF_ACTIVATIONS[activation.name](activation, arithmetic)
    name = activation.name
    if name == "power":
        exponent = activation.parameters["exponent"]
        name = f"power {exponent:g}" if float(f"{exponent:g}") == exponent else name
    return measured(name, arithmetic) if name in MEASURED_OF_HALF.get(arithmetic.name, MEASURED) else None


def kernel_in_layer(activation: Activation, arithmetic: Arithmetic = FLOAT32) -> Kernel | None:
    """Return what an activation of a recurrent layer may be off by: layers compute some with kernels of their own.

    Layers of 16-bit floats compute it in float32 or finer floats, and round what they are given and what they make.
    """
    if activation.name in _ALIKE_IN_LAYERS:
        return kernel_of(activation, arithmetic)
    name = f"{RECURRENT}{activation.name}"
    if activation.name == "elu":
        found = _exponential(activation, FLOAT32, name)
    elif name in MEASURED:
        found = measured(name)
    else:
        return None
    if arithmetic.name not in MEASURED_OF_HALF:
        return found
    return replace(
        found,
        absolute=found.absolute + arithmetic.smallest,
        relative=found.relative * (1 + arithmetic.unit),
        of_value=(found.of_value + arithmetic.unit) * (1 + arithmetic.unit),
        within=min(found.within, arithmetic.largest),
    )


_ALIKE_IN_LAYERS: Final = frozenset({"identity", "relu", "leaky_relu", "product", "step"})
"""Activations without a library's function: what bounds them does so everywhere (a ThresholdedRelu compares)."""


def in_a_chain(kernel: Kernel, activation: Activation, scalars: Scalars, arithmetic: Arithmetic = FLOAT32) -> Kernel:
    """Return the error of an activation that a file writes as a chain, with constants that are multiplied on the way.

    Each product with one more constant than in the chains that were measured is rounded, and changes the value, or the
    argument, by u; what it loses below the range is multiplied by other constants and by z; and none may overflow.
    """
    more = arithmetic.unit * max(0, scalars.count - _MEASURED_SCALARS.get(activation.name, 0))
    lost = 8 * scalars.count * arithmetic.smallest * scalars.spread
    return replace(
        kernel,
        absolute=kernel.absolute + lost,
        relative=kernel.relative + 2 * more + lost,
        of_value=kernel.of_value + 2 * more,
        within=min(kernel.within, arithmetic.largest / (8 * scalars.most)),
    )


_MEASURED_SCALARS: Final[Mapping[str, int]] = MappingProxyType({"gelu": 2, "gelu_tanh": 3, "hard_swish": 1})
"""Activation -> how many constants its chains are multiplied by where they were measured."""


def kernel_of_norm(activation: Activation, arithmetic: Arithmetic = FLOAT32) -> Kernel | None:
    """Return what (z - mean) / sqrt(mean square + eps) may be off by, however a runtime makes its mean square.

    None for what is no norm, and for norms with a least divisor.
    """
    if not isinstance(activation, Normalised) or activation.least or activation.n < 2:
        return None
    share = arithmetic.gamma(activation.n, 3 * SPARE)
    return Kernel(of_group=share) if share < 1 else None


def _exact(activation: Activation, arithmetic: Arithmetic) -> Kernel:
    return EXACT


def _one_product(activation: Activation, arithmetic: Arithmetic) -> Kernel:
    """A product with alpha below 0."""
    steep = max(1.0, float(np.max(activation.lipschitz)))
    return Kernel(4 * arithmetic.smallest * (1 + steep), 2 * arithmetic.unit * steep)


def _exponential(activation: Activation, arithmetic: Arithmetic, name: str = "elu") -> Kernel:
    """gamma (z, or alpha (exp(z) - 1)): the error of ELU with alpha = 1, and two products."""
    one, steep = measured(name, arithmetic), max(1.0, float(np.max(activation.lipschitz)))
    return Kernel(
        steep * (one.absolute + 4 * arithmetic.unit),
        steep * (float(one.relative) + 4 * arithmetic.unit),
        within=one.within,
        measured=name,
    )


def _celu(activation: Activation, arithmetic: Arithmetic) -> Kernel:
    """z, or alpha (exp(z / alpha) - 1): alpha times the error of ELU, and a division, which moves alpha exp by |z|."""
    one, alpha = measured("elu", arithmetic), float(np.max(activation.parameters["alpha"]))
    return Kernel(
        max(1.0, alpha) * (one.absolute + 4 * arithmetic.unit),
        float(one.relative) + 4 * arithmetic.unit,
        within=one.within,
        measured="elu",
    )


def _softmax(activation: Activation, arithmetic: Arithmetic) -> Kernel:
    """u (.37 + (n + 2 + ln n) x) + 2 rho x + n 2^-126 with x <= 1, rho the relative error of exp, times 2.

    n roundings of the sum are those of accumulators.
    """
    assert isinstance(activation, Softmax)
    n, more = activation.width, 1.01 + 16 * arithmetic.unit
    share = arithmetic.unit * (3 + math.log(n)) + arithmetic.accumulator * n
    return Kernel(share * more + 4 * arithmetic.unit * 2 + n * arithmetic.smallest)


def _contraction(activation: Activation, arithmetic: Arithmetic) -> Kernel:
    assert isinstance(activation, Contraction)
    return kernel_of_products(activation, arithmetic)


def kernel_of_products(activation: Contraction, arithmetic: Arithmetic = FLOAT32, spare: int = SPARE) -> Kernel:
    """gamma_N of the products' sizes, N the number of terms, a product, and factors before and behind."""
    share = arithmetic.gamma(activation.inner, spare)
    if share == math.inf:
        return Kernel(math.inf)
    return Kernel(absolute=2 * activation.inner * arithmetic.smallest, of_terms=share)


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
        "product": lambda activation, arithmetic: Kernel(of_value=arithmetic.unit),
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
