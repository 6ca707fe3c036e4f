"""From the matrices that `sensitivity` found to the report's section and the file of --save."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from idl_audit.commands.options.measures import SensitivityOptions
from idl_audit.commands.shared.local_sensitivity import WorstCase
from idl_audit.commands.shared.samples import describe_preprocessing
from idl_audit.commands.shared.sensitivity_figures import (
    class_margins,
    input_map,
    smallest_scalar,
    top_groups,
    top_inputs,
)
from idl_audit.data.fingerprints import groups_sha256
from idl_audit.data.groups import Groups
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.cardinality import cardinality_bounds
from idl_audit.measure.centre_radius import LARGEST, applicable_methods
from idl_audit.measure.groups import group_sums
from idl_audit.measure.induced_norms import induced_norm
from idl_audit.measure.local_sensitivity import taken_methods
from idl_audit.measure.norm_matrix import norm_bound
from idl_audit.measure.reachability import independent_pairs
from idl_audit.measure.sensitivity import Sensitivity
from idl_audit.measure.spectral import spectral_bound, spectral_scalar
from idl_audit.report.schema import Cardinality, InducedNorm, InputGroups
from idl_audit.report.schema import Sensitivity as SensitivitySection
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.margins import rivals


@dataclass(frozen=True)
class Inputs:
    """How the inputs are looked at: as a picture of this shape, and in groups."""

    shape: tuple[int, ...]
    groups: Groups | None


@dataclass(frozen=True)
class Found:
    """The matrices, global or local; `margins` are the rows y_label - y_j."""

    matrix: FloatArray
    margins: FloatArray | None
    whole: FloatArray
    """The global matrix."""
    local: WorstCase | None = None

    @property
    def is_finite(self) -> bool:
        """Whether float64 can hold them, and there is something that they are of."""
        return bool(np.isfinite(self.matrix).all()) and (self.local is None or bool(self.local.samples))


def saved_arrays(
    found: Found, groups: Groups | None, options: SensitivityOptions, input_shape: tuple[int, ...]
) -> dict[str, AnyArray]:
    """Return what --save writes: S, row_sums, the input's shape, and what else was asked for."""
    arrays: dict[str, AnyArray] = {"S": found.matrix, "row_sums": Sensitivity(found.matrix, None).row_sums}
    arrays["input_shape"] = np.array(input_shape, np.int64)
    if found.local is not None:
        arrays["S_global"] = found.whole
        arrays["indices"] = np.array([sample.index for sample in found.local.samples], np.int64)
    if found.margins is not None and options.label is not None:
        arrays["margins"] = found.margins
        arrays["rivals"] = rivals(max(len(found.matrix), 2), options.label)
    if groups is not None:
        arrays["group_sums"] = group_sums(found.matrix, groups.labels, len(groups.names))
        arrays["group_names"] = np.array(groups.names)
    return arrays


def sensitivity_section(
    found: Found,
    model: ImplicitModel,
    rescaled: ImplicitModel,
    inputs: Inputs,
    images: tuple[str, ...],
    options: SensitivityOptions,
) -> SensitivitySection:
    """Return the report's section; both models read data units, and `images` are the pictures that were drawn."""
    local = options.local
    own, whole = Sensitivity(found.matrix, None), Sensitivity(found.whole, None)
    norm_inf = own.norm_inf if found.is_finite else None
    rho, spectral = norm_bound(rescaled), spectral_scalar(model)
    section = SensitivitySection(
        kind="global" if local is None else "local",
        method=_method(model, options),
        eps=None if options.local is None else options.local.eps.value,
        preprocessing=describe_preprocessing(options.preprocessing),
        norm_inf=norm_inf,
        rho_norm_bound=rho,
        spectral_inf=spectral,
        smallest=smallest_scalar(norm_inf=norm_inf, rho_norm_bound=rho, spectral_inf=spectral),
        global_norm_inf=None if local is None or not math.isfinite(whole.norm_inf) else whole.norm_inf,
        state_bounds=None if local is None else local.state_bounds,
        independent_pairs=int(independent_pairs(model).sum()),
        samples=() if found.local is None else tuple(found.local.samples),
        witness=None if options.witness is None else str(options.witness),
        matrix_file=None if options.save is None or not found.is_finite else str(options.save),
        images=images,
    )
    if not found.is_finite:
        return section
    parts = _read_off(found, inputs, options) | {"induced": _induced(found, model, options)}
    return section.model_copy(update=parts)


def _induced(found: Found, model: ImplicitModel, options: SensitivityOptions) -> InducedNorm | None:
    """Return the least known bound in the norm that was asked for; of l2 for all inputs spectral norms are another."""
    if options.norm == "linf":
        return None
    by_matrix = induced_norm(found.matrix, options.norm)
    by_norms = spectral_bound(model) if options.norm == "l2" and options.local is None else None
    if by_norms is not None and (by_matrix is None or by_norms < by_matrix):
        return InducedNorm(norm=options.norm, value=by_norms, by="spectral norms")
    return None if by_matrix is None else InducedNorm(norm=options.norm, value=by_matrix, by="S")


def _read_off(found: Found, inputs: Inputs, options: SensitivityOptions) -> dict[str, object]:
    """Return the parts of the section that show the matrix."""
    parts: dict[str, object] = {
        "row_sums": tuple(Sensitivity(found.matrix, None).row_sums.tolist()),
        "top_inputs": top_inputs(found.matrix, options.top),
        "input_map": input_map(found.matrix, inputs.shape),
    }
    if found.margins is not None and options.label is not None:
        parts["margins"] = class_margins(found.margins, found.matrix, options.label, options.top)
    if options.sparse is not None:
        sigma = 1.0 if options.local is None else options.local.eps.value
        bounds = cardinality_bounds(found.matrix, sigma, options.sparse)
        parts["cardinality"] = Cardinality(k=options.sparse, sigma=sigma, bounds=tuple(bounds.tolist()))
    if inputs.groups is not None and options.groups is not None:
        names = inputs.groups.names
        sums = group_sums(found.matrix, inputs.groups.labels, len(names))
        parts["groups"] = InputGroups(
            source=options.groups,
            sha256=groups_sha256(inputs.groups),
            names=names,
            top=top_groups(sums, names, options.top),
        )
    return parts


def _method(model: ImplicitModel, options: SensitivityOptions) -> str:
    """Return the method, and for `best` what it is the least of."""
    if options.method != "best":
        return options.method
    limit = LARGEST if options.model.max_bytes is None else options.model.max_bytes
    names = applicable_methods(model, limit) if options.local is None else taken_methods(model, "best", limit)
    return f"best of {' and '.join(names)}"
