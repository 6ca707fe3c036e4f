"""What hidden tensors and outputs of a real query are at one point, exactly: what an assignment has to say of them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import numpy as np

from idl_audit.commands.shared.assertions import AskedQuery, graph_of_entries
from idl_audit.implicit.exact_constants import rounded_constants
from idl_audit.implicit.unfused import unfused
from idl_audit.proof.exact.numbers import Inexact
from idl_audit.proof.exact.point import exact_outputs, why_inexact
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import MemoryLimitError, UnsupportedModelError

MOST_PRODUCTS: Final = 2**20
"""Of coefficients with numbers, which take a second or so: of larger networks the values are told as floats."""


def exact_values(asked: AskedQuery, point: Sequence[Fraction]) -> dict[str, AnyArray]:
    """Return the exact values of hidden and output variables, by name; none where the networks have no exact form.

    Args:
        asked: a real query.
        point: the inputs, (p,).
    """
    graph, entries = graph_of_entries(asked)
    try:
        model = None if rounded_constants(graph) else unfused(graph)
        if model is None or why_inexact(model) or model.nnz > MOST_PRODUCTS:
            return {}
        values = dict(zip(entries, exact_outputs(model, point), strict=False))  # behind them stands the first input
    except (UnsupportedModelError, MemoryLimitError, Inexact):
        return {}
    shapes = {variable.name: variable.shape for variable in asked.specification.variables}
    found: dict[str, list[Fraction]] = {}
    for (name, _), value in values.items():
        found.setdefault(name, []).append(value)
    return {name: np.array(flat, object).reshape(shapes[name]) for name, flat in found.items()}
