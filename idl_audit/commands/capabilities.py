"""What the VNN-LIB 2 solver can decide, in the words of the standard: capability -> lines.

Operators are those that the importer reads; one for which nothing bounds what floats change is named with `real` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from idl_audit.data.vnnlib2.arithmetic import OF_INPUTS
from idl_audit.data.vnnlib2.reader import VERSIONS
from idl_audit.data.vnnlib2.syntax import REAL
from idl_audit.graph.onnx_reader import OLDEST_OPSET
from idl_audit.graph.schemas import is_operator, newest_opset
from idl_audit.implicit.as_written import bounded_operators
from idl_audit.implicit.lowering import CONSTANT, LOWERINGS
from idl_audit.implicit.lowering.sequences import SEQUENCES

OF_CONSTANTS: Final = frozenset({"Constant", "ConstantOfShape", "If", "Loop"})
"""Operators without a lowering: constants, and control flow whose course is fixed."""


def operators() -> tuple[str, ...]:
    """Return every operator of ONNX that is read, with `real` behind those that no rounding is bounded of."""
    bounded = bounded_operators() | OF_CONSTANTS | CONSTANT
    names = sorted(name for name in {*LOWERINGS, *SEQUENCES, *OF_CONSTANTS} if is_operator(name))
    return tuple(name if name in bounded else f"{name} {REAL}" for name in names)


CAPABILITIES: Final[Mapping[str, Callable[[], tuple[str, ...]]]] = MappingProxyType(
    {
        "--onnx-opset-versions": lambda: (str(OLDEST_OPSET), str(newest_opset())),
        "--onnx-element-types": lambda: OF_INPUTS,
        "--onnx-operators": operators,
        "--vnnlib-versions": lambda: tuple(f"{major}.{minor}" for major, minor in (min(VERSIONS), max(VERSIONS))),
        "--hidden-node-theories": lambda: ("NH", "H"),
        "--multiple-input-output-theories": lambda: ("SIO", "MIO"),
        "--multiple-network-theories": lambda: ("SNET", "MENET", "MINET", "MNET"),
        "--multiple-node-comparison-theories": lambda: ("SNC", "MNC"),
        "--arithmetic-complexity-theories": lambda: ("BND", "OUTC", "LIN", "POLY"),
        "--optimised-disjunctive-reasoning": lambda: ("false",),
        "--serialise-assignments": lambda: ("true",),
    }
)
"""Capability -> the lines that tell it."""
