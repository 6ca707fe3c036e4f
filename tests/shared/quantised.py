"""Networks quantised statically by onnxruntime, as users do it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

PER_CHANNEL = 13
"""The operator set in which DequantizeLinear has got an axis."""


class Rows(CalibrationDataReader):
    """Samples for calibration, one by one."""

    def __init__(self, name: str, rows: Iterable[np.ndarray[Any, Any]]) -> None:
        self.name, self.rows = name, iter(rows)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next sample."""
        row = next(self.rows, None)
        return None if row is None else {self.name: row}


def quantised(
    source: Path,
    target: Path,
    inputs: np.ndarray[Any, Any],
    *,
    per_channel: bool = False,
    format: QuantFormat = QuantFormat.QDQ,
    reduce_range: bool = False,
) -> Path:
    """Write the network of `source` with int8 weights and int8 numbers between its layers, calibrated on the inputs.

    Scales for each channel need operator set 13: older networks, which must have no Softmax, are converted to it.
    """
    read = onnx.load(str(source), load_external_data=False)
    if max(one.version for one in read.opset_import if not one.domain) < PER_CHANNEL:
        source = target.with_suffix(".converted.onnx")
        onnx.save(version_converter.convert_version(read, PER_CHANNEL), str(source))
    entry = read.graph.input[0]
    shape = [dim.dim_value or 1 for dim in entry.type.tensor_type.shape.dim]
    logging.disable(logging.WARNING)  # it asks for a pass of its own before
    try:
        quantize_static(
            str(source),
            str(target),
            Rows(entry.name, [row.reshape(shape).astype(np.float32) for row in inputs]),
            quant_format=format,
            per_channel=per_channel,
            reduce_range=reduce_range,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)
    return target
