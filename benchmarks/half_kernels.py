"""How far kernels of 16-bit floats are from the functions: `python -m benchmarks.half_kernels [--write | --check]`.

The functions of `benchmarks.kernel_errors`, on every float16 and every bfloat16 number: as onnxruntime runs their
operators and chains (which it computes in float32 and rounds at the end), as torch does, and their chains step by step
in torch, every step rounded to 16 bits. The reference is the activation in float64.

--write makes idl_audit/implicit/half_kernel_table.py and reports/half_kernels.md; --check tells what is above the
bounds that proofs take, and its exit code is then 1.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.kernel_errors import LEVELS, Function, functions
from benchmarks.kernel_tables import rounded_up
from benchmarks.measuring import ROOT
from idl_audit.implicit.kernels import ARITHMETICS, RECURRENT, Arithmetic, measured
from idl_audit.values.arrays import BoolArray, FloatArray

TYPES: Final = MappingProxyType({"float16": torch.float16, "bfloat16": torch.bfloat16})
FILES: Final = (ROOT / "idl_audit/implicit/half_kernel_table.py", ROOT / "reports/half_kernels.md")
DENSE: Final = 128
NOT_OF_HALF: Final = frozenset({"Celu"})
"""Operators that ONNX does not have for float16."""


def numbers(kind: torch.dtype) -> torch.Tensor:
    """Return every number of a format, NaN and infinities included, (2^16,)."""
    return torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.int16)).view(kind)


def forms(function: Function, kind: torch.dtype) -> Iterator[tuple[str, FloatArray]]:
    """Yield every way in which a function is computed here, with its results at all numbers, in float64."""
    x = numbers(kind)
    yield "torch", _float64(function.in_torch(x))
    for name, make in function.chains.items():
        model = make()
        yield f"{name}, step by step", _float64(stepwise(model, x))
        if kind is torch.float16 and name not in NOT_OF_HALF:
            for level, optimised in LEVELS.items():
                yield f"onnxruntime {name}, {level}", _run(_of_float16(model), optimised, x)


def _float64(x: torch.Tensor) -> FloatArray:
    return np.asarray(x.to(torch.float64).numpy())


def _of_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with float16 in the place of float32."""
    graph, made = model.graph, onnx.ModelProto()
    made.CopyFrom(model)
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for old, new in zip(graph.initializer, made.graph.initializer, strict=True):
        new.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(old).astype(np.float16), old.name))
    return made


def _run(model: onnx.ModelProto, level: Any, x: torch.Tensor) -> FloatArray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level, options.graph_optimization_level = 3, level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x.numpy()})[0], np.float64)


STEPS: Final[Mapping[str, Callable[..., torch.Tensor]]] = MappingProxyType(
    {
        "Add": torch.add,
        "Mul": torch.mul,
        "Div": torch.div,
        "Pow": torch.pow,
        "Clip": torch.clamp,
        "Greater": torch.gt,
        "Where": torch.where,
        "HardSigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
        "Gelu": lambda x, approximate=b"none": torch.nn.functional.gelu(x, approximate=approximate.decode()),
        "Swish": torch.nn.functional.silu,
        "HardSwish": torch.nn.functional.hardswish,
        **{name: getattr(torch, name.lower()) for name in ("Erf", "Tanh", "Sigmoid", "Abs", "Sqrt", "Reciprocal")},
        **{name: getattr(torch, name.lower()) for name in ("Exp", "Log", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan")},
        **{name: getattr(torch, name.lower()) for name in ("Sinh", "Cosh", "Asinh", "Acosh", "Atanh")},
        **{
            name: getattr(torch.nn.functional, name.lower())
            for name in ("Softplus", "Mish", "Softsign", "Elu", "Selu", "Celu")
        },
    }
)
"""Operators of the chains."""


def stepwise(model: onnx.ModelProto, x: torch.Tensor) -> torch.Tensor:
    """Return what a chain makes of numbers where every step is rounded to their format."""
    constants = {one.name: torch.tensor(numpy_helper.to_array(one)).to(x.dtype) for one in model.graph.initializer}
    known = {**constants, "x": x}
    for node in model.graph.node:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        known[node.output[0]] = STEPS[node.op_type](*(known[name] for name in node.input), **attributes)
    return known["y"]


@dataclass(frozen=True)
class Fit:
    """|error| <= absolute + relative |z| + of_value |phi(z)| for |z| and |phi(z)| below `within`."""

    absolute: float
    relative: float
    of_value: float
    within: float


@dataclass(frozen=True)
class Errors:
    """The greatest errors of a function over all of its forms, at every number, and which form has them."""

    z: FloatArray
    values: FloatArray
    off: FloatArray
    form: list[str]
    arithmetic: Arithmetic

    @property
    def counts(self) -> BoolArray:
        """Where a bound is wanted."""
        with np.errstate(invalid="ignore"):
            return np.asarray(
                (np.abs(self.z) < self.arithmetic.largest) & (np.abs(self.values) < self.arithmetic.largest)
            )

    def fitted(self) -> Fit:
        """Return the bound of one kind that is the least on the average of numbers around 1, beside the smallest."""
        lost = self.counts & ~np.isfinite(self.off)
        reach = np.maximum(np.abs(self.z), np.abs(self.values))
        within = 2.0 ** math.floor(math.log2(float(reach[lost].min(initial=self.arithmetic.largest))))
        counts = self.counts & (reach < within)
        z, values, off = np.abs(self.z[counts]), np.abs(self.values[counts]), self.off[counts]
        floor = self.arithmetic.smallest
        beyond = np.maximum(off - floor, 0.0)
        found = [Fit(rounded_up(float(off.max())), 0.0, 0.0, within)]
        with np.errstate(all="ignore"):
            for place, sizes in enumerate((z, values)):
                most = float(np.nan_to_num((beyond / sizes)[beyond > 0], nan=math.inf).max(initial=0.0))
                shares = [0.0, 0.0]
                shares[place] = rounded_up(most) if most < math.inf else most
                found.append(Fit(floor, *shares, within))
        near = (z > 2.0**-7) & (z < 2.0**7)
        usable = [fit for fit in found if max(fit.relative, fit.of_value) < 16 * self.arithmetic.unit]
        return min(usable, key=lambda fit: float(np.mean(np.log2(bound(fit, z, values)[near]))))

    def above(self, fit: Fit) -> list[str]:
        """Return the forms with errors above a bound."""
        inside = self.counts & (np.maximum(np.abs(self.z), np.abs(self.values)) < fit.within)
        with np.errstate(invalid="ignore"):
            worse = inside & ~(self.off <= bound(fit, np.abs(self.z), np.abs(self.values)))
        return [f"{self.form[int(place)]} at {self.z[place]:g}" for place in np.flatnonzero(worse)[:3]]


def bound(fit: Fit, z: FloatArray, values: FloatArray) -> FloatArray:
    """Return the bound at sizes of z and phi(z)."""
    return fit.absolute + fit.relative * z + fit.of_value * values


def errors(function: Function, arithmetic: Arithmetic) -> Errors:
    """Measure a function on every number."""
    kind = TYPES[arithmetic.name]
    z = _float64(numbers(kind))
    z[~np.isfinite(z)] = math.nan
    with np.errstate(all="ignore"):
        values = function.exact(z)
        off, form = np.zeros(len(z)), [""] * len(z)
        for name, found in forms(function, kind):
            own = np.abs(found - values)
            own = np.where(np.isnan(own), np.inf, own)
            for place in np.flatnonzero(own > off):
                form[place] = name
            off = np.maximum(off, own)
    return Errors(z, values, off, form, arithmetic)


def measured_functions() -> dict[str, Function]:
    """Return the functions of the table; layers compute in finer floats, and round."""
    return {name: function for name, function in functions().items() if not name.startswith(RECURRENT)}


def table(fits: Mapping[str, Mapping[str, Fit]]) -> str:
    """Return the module that proofs read."""
    parts = []
    for kind, of_kind in fits.items():
        rows = [
            f'                "{name}": Measured({fit.absolute!r}, {fit.relative!r}, {fit.of_value!r}, '
            f"2.0**{round(math.log2(fit.within))}, {DENSE}),"
            for name, fit in sorted(of_kind.items())
        ]
        lines = [f'        "{kind}": MappingProxyType(', "            {", *rows, "            }", "        ),"]
        parts.append("\n".join(lines))
    return f'''"""Measured errors of kernels of 16-bit floats, by benchmarks/half_kernels.py."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from idl_audit.implicit.kernel_table import Measured

MEASURED_OF_HALF: Final[Mapping[str, Mapping[str, Measured]]] = MappingProxyType(
    {{
{chr(10).join(parts)}
    }}
)
"""Format -> activation -> the greatest errors at all of its numbers, over all forms in which it is computed."""
'''


def report(fits: Mapping[str, Mapping[str, Fit]], worst: Mapping[str, Mapping[str, str]]) -> str:
    """Return the report for readers."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "torch"))
    lines = [
        "# Errors of kernels of 16-bit floats",
        "",
        "Made by `python -m benchmarks.half_kernels --write`: every function that a library computes, at every one of "
        f"the 65,536 numbers of its format, against the same function in float64; {versions}. In torch, its chains "
        "step by step with every step rounded, and for float16 in onnxruntime without and with its optimisations, "
        "which computes whole chains in float32 on a processor and rounds at the end.",
        "",
        "|computed - exact| <= absolute + relative |z| + of value |phi(z)| for all |z| and |phi(z)| below the last "
        "column. Proofs take twice these bounds, and that of the [float32 kernel](kernels.md) besides, as a runtime "
        "may hand on a number that it has not rounded.",
    ]
    for kind, of_kind in fits.items():
        unit = ARITHMETICS[kind].unit
        lines += [
            "",
            f"## {kind}, u = 2^{round(math.log2(unit))}",
            "",
            "| function | absolute | relative u | of value u | for sizes below | greatest error |",
            "|---|---:|---:|---:|---:|---|",
        ]
        for name, fit in sorted(of_kind.items()):
            shares = f"{fit.relative / unit:.3g} | {fit.of_value / unit:.3g}"
            within = f"2^{round(math.log2(fit.within))}"
            lines.append(f"| {name} | {fit.absolute:.3g} | {shares} | {within} | {worst[kind][name]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table and the report")
    parser.add_argument("--check", action="store_true", help="compare with the bounds that proofs take; writes nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    fits: dict[str, dict[str, Fit]] = {kind: {} for kind in TYPES}
    worst: dict[str, dict[str, str]] = {kind: {} for kind in TYPES}
    above = 0
    for kind in TYPES:
        for name, function in measured_functions().items():
            found = errors(function, ARITHMETICS[kind])
            if given.check:
                kernel = measured(name, ARITHMETICS[kind])
                told = found.above(Fit(kernel.absolute, float(kernel.relative), kernel.of_value, kernel.within))
                above += bool(told)
                print(f"{kind} {name}: {'; '.join(told) or 'within its bound'}", flush=True)
                continue
            fit = fits[kind][name] = found.fitted()
            near = found.counts & (np.abs(found.z) < 2.0**7) & np.isfinite(found.off)
            place = int(np.where(near, found.off, -1.0).argmax())
            worst[kind][name] = f"{found.off[place]:.3g} at {found.z[place]:.6g}, {found.form[place]}"
            print(kind, name, fit, worst[kind][name], flush=True)
    if given.write:
        for path, text in zip(FILES, (table(fits), report(fits, worst)), strict=True):
            path.write_text(text, encoding="utf-8")
    sys.exit(1 if above else 0)


if __name__ == "__main__":
    main()
