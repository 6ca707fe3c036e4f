"""Data units: fold the user's preprocessing into the model, so that eps, S and attacks speak of the user's numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from idl_audit.implicit.composition import compose
from idl_audit.implicit.linear_maps import LinearMap, Selection
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import TINY, gamma


def in_data_units(model: ImplicitModel, factor: FloatArray, offset: FloatArray) -> ImplicitModel:
    """Return the model whose input is the data u, where `model` reads factor * u + offset: B' = B diag(factor).

    Args:
        model: the model of the network itself.
        factor: shape (p,), computed with at most four roundings from the numbers that the user gave.
        offset: shape (p,), likewise; b' = b + B offset.
    """
    if bool((factor == 1).all()) and not offset.any():
        return model
    return reading(model, Selection.diagonal(factor).uncertain(gamma(4)), offset)


def reading(model: ImplicitModel, linear_map: LinearMap, offset: FloatArray) -> ImplicitModel:
    """Return the model that reads v where `model` reads L v + o: B' = B L, b' = b + B o; its shapes stay.

    Args:
        model: a model with p inputs.
        linear_map: L, with p rows.
        offset: o, shape (p,), computed with at most four roundings.
    """

    def folded(row: Affine) -> Affine:
        if row.input is None:
            return row
        shift = row.input.apply(offset[None])[0]
        reach = float(np.abs(offset).max(initial=0.0))
        error = (gamma(row.input.row_terms + 8) * row.input.norm_inf + row.input.uncertain_norm) * reach
        error += TINY  # what products lose below the range of float64
        error += gamma(2) * float((np.abs(row.constant) + np.abs(shift)).max(initial=0.0))
        return Affine(
            row.states,
            compose(row.input, linear_map),
            row.constant + shift,
            row.constant_error + error * (1 + gamma(8)),
        )

    return replace(model, rows=tuple(folded(row) for row in model.rows), output=folded(model.output))
