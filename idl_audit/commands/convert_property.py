"""convert-property: a property of VNN-LIB 1 becomes one of VNN-LIB 2.0."""

from __future__ import annotations

import math
from pathlib import Path

from idl_audit.data.vnnlib import read_vnnlib
from idl_audit.data.vnnlib2.reader import parse_specification
from idl_audit.data.vnnlib2.syntax import REAL
from idl_audit.data.vnnlib2.translation import specification_of
from idl_audit.data.vnnlib2.writer import written
from idl_audit.graph.inputs import names_of, shape_text
from idl_audit.graph.ir import Value, shown
from idl_audit.graph.onnx_reader import read_interface
from idl_audit.values.errors import OptionError


def convert_property(path: Path, *, onnx: Path | None = None, element: str = REAL) -> str:
    """Return the text of version 2.0 for the property of version 1 at `path`; it was read again and says the same.

    Raises:
        InvalidInputError: where a file is refused, or the property does not fit the model.
    """
    asked = read_vnnlib(path)
    inputs = outputs = None
    if onnx is not None:
        of_inputs, of_outputs = read_interface(onnx)
        inputs = _shape(onnx, "input", of_inputs, asked.n_inputs, element)
        outputs = _shape(onnx, "output", of_outputs, asked.n_outputs, element)
    made = specification_of(asked, inputs=inputs, outputs=outputs, element=element)
    text = written(made)
    if parse_specification(text, source=f"{path} in version 2") != made:
        raise AssertionError("what was written does not say what was meant")
    return text


def _shape(path: Path, noun: str, values: tuple[Value, ...], count: int, element: str) -> tuple[int, ...]:
    """Return the shape that a model declares for its one input or output, open dimensions as 1."""
    if len(values) != 1:
        named = f" ({names_of(values)})" if values else ""
        raise OptionError(f"{path} has {len(values)} {noun}s{named} where one is expected; leave --onnx out")
    (value,) = values
    if value.shape is None:
        raise OptionError(f"{path} declares no shape for its {noun} {shown(value.name)}; leave --onnx out")
    shape = tuple(size if isinstance(size, int) else 1 for size in value.shape)
    if math.prod(shape) != count:
        raise OptionError(
            f"{path} has {math.prod(shape):,} {noun}s, of shape {shape_text(value.shape)}, and the property has "
            f"{count:,}; give the model that it is about"
        )
    if element not in (REAL, value.dtype):
        raise OptionError(
            f"{path} has the {noun} {shown(value.name)} of {value.dtype}, not {element}; leave --element out for a "
            "query about real numbers"
        )
    return shape
