"""Sharper sensitivity matrices: by centre and radius of the slopes, and by half a step.

See docs/mathematics.md, section 5.3.

If every slope of phi_i lies in [c_i - r_i, c_i + r_i], then dx = c dz + w with |w| <= r |dz|. Eliminating dz,

    S(c, r) = |Cr| (I - |R|)^-1 |Br| + |Dr|,     G = (I - A diag(c))^-1,
    R = diag(r) G A,   Br = diag(r) G B,   Cr = C + C diag(c) G A,   Dr = D + C diag(c) G B,

which is never larger than the paper's S = S(0, gamma): signs cancel along the part of each slope that is common to all
inputs. Where all slopes lie in [0, g], |J| <= (S + |C (I - diag(g) A)^-1 diag(g) B + D|) / 2 holds as well (half-step).

Elsewhere: loop transformation, slope restriction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.measure.sensitivity import combined, lost_below_range, paper_matrix, roundings, signed_matrix
from idl_audit.proof.flat import flat_bytes, flat_sensitivity, monotone_sensitivity
from idl_audit.values.arrays import FloatArray
from idl_audit.values.check import enough
from idl_audit.values.errors import InvalidInputError, MemoryLimitError, UnsupportedModelError
from idl_audit.values.rounding import gamma, up

BYTES_PER_NUMBER = 8


def global_slopes(model: ImplicitModel) -> dict[int, tuple[FloatArray, FloatArray]]:
    """Return the least and greatest slope of every state over all inputs: block -> two vectors (n_k,)."""
    return {k: block.everywhere for k, block in enumerate(model.blocks)}


LARGEST: Final = 4 * 10**9
"""Bytes that the matrices of all states may take, unless another limit is given."""


def global_paper(model: ImplicitModel, functionals: FloatArray | None = None, limit: int = LARGEST) -> FloatArray:
    """Return the paper's S for all inputs."""
    if model.is_feed_forward:
        return paper_matrix(model, functionals)
    return flat_sensitivity(model, functionals=functionals, middle=False, limit=limit)


def global_gains(model: ImplicitModel, functionals: FloatArray | None = None, limit: int = LARGEST) -> FloatArray:
    """Return the S of the paper's recursion with each loop's own gain in it; for feed-forward models the paper's S."""
    return paper_matrix(model, functionals)


def global_monotone(model: ImplicitModel, functionals: FloatArray | None = None, limit: int = LARGEST) -> FloatArray:
    """Return the S of a monotone model for all inputs."""
    return monotone_sensitivity(model, functionals=functionals, limit=limit)


def global_centre_radius(
    model: ImplicitModel, functionals: FloatArray | None = None, limit: int = LARGEST
) -> FloatArray:
    """Return S(c, r) for all inputs. Raises MemoryLimitError where that would take more bytes than the limit."""
    if not model.is_feed_forward:
        return flat_sensitivity(model, functionals=functionals, limit=limit)
    needed = centre_radius_bytes(model)
    if needed > limit:
        raise MemoryLimitError(
            f"the method centre-radius would take {needed / 1e6:,.0f} MB, above the limit of {limit / 1e6:,.0f} MB; "
            f"raise --max-memory to {enough(needed)}, or use the method best, which takes what fits"
        )
    return centre_radius_matrix(model, global_slopes(model), functionals)


def centre_radius_bytes(model: ImplicitModel) -> int:
    """Return the memory that `centre_radius_matrix` needs, in bytes: a matrix for each pair of blocks that meet.

    Beside them stands one more of the largest while the next is made.
    """
    if not model.is_feed_forward:
        return flat_bytes(model)
    reach: dict[int, set[int]] = {}
    numbers = 0
    for k in model.evaluation_order:
        sources = set(model.rows[k].states)
        for j in model.rows[k].states:
            sources |= reach[j]
        reach[k] = sources
        numbers += model.blocks[k].size * (2 * model.n_inputs + sum(model.blocks[j].size for j in sources))
    widest = max([model.n_inputs, *(block.size for block in model.blocks)])
    return (numbers + widest**2 + 4 * NUMBERS_AT_ONCE) * BYTES_PER_NUMBER


def centre_radius_matrix(
    model: ImplicitModel, slopes: Mapping[int, tuple[FloatArray, FloatArray]], functionals: FloatArray | None = None
) -> FloatArray:
    """Return S(c, r) for slopes in [c - r, c + r], shape (q, p), rounded upward; at most the paper's S entrywise.

    Z_k, |dz_k| <= Z_k |du|, comes block by block: Z_k = |N_k| + sum over j of |M_kj| diag(r_j) Z_j with the matrices
    M_kj (from w_j to z_k) and N_k (from u to z_k) of the network whose slopes are the centres.

    Args:
        model: the model; one with loops is bounded by one dense system (`flat`).
        slopes: bounds of every state's slope; block -> (least, greatest). Local ones give a local S.
        functionals: rows F, shape (r, q), to bound F y in place of y.

    Raises:
        UnsupportedModelError: where states are coupled (softmax).
    """
    if any(block.activation.coupled for block in model.blocks):
        raise UnsupportedModelError(("centre and radius of slopes are known for componentwise activations only",))
    if not model.is_feed_forward:
        return flat_sensitivity(model, slopes, functionals)
    centres = {k: (least + most) / 2 for k, (least, most) in slopes.items()}
    # the radius reaches both ends of the slope interval, whatever rounding did to the centre
    radii = {k: up(np.maximum(most - centres[k], centres[k] - least)) for k, (least, most) in slopes.items()}
    reach: dict[int, FloatArray] = {}
    paths: dict[int, dict[int, FloatArray]] = {}
    direct: dict[int, FloatArray] = {}
    for k in model.evaluation_order:
        direct[k], paths[k] = _linear_part(model.rows[k], model.n_inputs, centres, direct, paths)
        reach[k] = _bounded(np.abs(direct[k]), paths[k], radii, reach)
    d, c = _linear_part(model.output, model.n_inputs, centres, direct, paths)
    if functionals is not None:
        d, c = functionals @ d, {j: functionals @ path for j, path in c.items()}
    found = _bounded(np.abs(d), c, radii, reach)
    steepest = {k: np.abs(centres[k]) + radii[k] for k in slopes}
    return np.asarray(found * (1 + gamma(8)) + _losses(model, functionals, steepest))


def _losses(model: ImplicitModel, functionals: FloatArray | None, steepest: Mapping[int, FloatArray]) -> FloatArray:
    """Return what rounding, here and in the model's coefficients, may have taken from a matrix with cancellations.

    gamma times the same sums without any cancellation, and what those sums gain from the coefficients' uncertainty. Of
    every output, then times |F|: in differences of outputs the values cancel, their errors do not.
    """
    behind: dict[int, FloatArray] = {}
    worst = paper_matrix(model, None, steepest, behind_blocks=behind)
    certain = paper_matrix(model, None, steepest, uncertain=False)
    rounding = gamma(4 * roundings(model) + model.n_outputs + 128)
    losses = np.maximum(worst - certain, 0.0) * (1 + rounding) + rounding * worst
    losses = losses + lost_below_range(model, worst, behind)
    return losses if functionals is None else combined(functionals, losses) * (1 + rounding)


def _linear_part(
    row: Affine,
    n_inputs: int,
    centres: Mapping[int, FloatArray],
    direct: Mapping[int, FloatArray],
    paths: Mapping[int, Mapping[int, FloatArray]],
) -> tuple[FloatArray, dict[int, FloatArray]]:
    """Return (from u, from each w_j) of an affine map behind the network whose slopes are the centres."""
    from_input = np.zeros((row.size, n_inputs))
    if row.input is not None:
        _add_map(from_input, row.input)
    found: dict[int, FloatArray] = {}

    def add(source: int, size: int) -> FloatArray:
        return found.setdefault(source, np.zeros((row.size, size)))

    for k, linear_map in row.states.items():
        _add_product(from_input, linear_map, centres[k], direct[k])
        _add_map(add(k, linear_map.n_in), linear_map)
        for j, path in paths[k].items():
            _add_product(add(j, path.shape[1]), linear_map, centres[k], path)
    return from_input, found


NUMBERS_AT_ONCE: Final = 2**20
"""Numbers of an intermediate product."""


def _add_map(total: FloatArray, linear_map: LinearMap) -> None:
    """Add W to a total in place, some rows at a time."""
    matrix = linear_map.to_sparse()
    at_once = max(1, NUMBERS_AT_ONCE // max(linear_map.n_in, 1))
    for start in range(0, len(total), at_once):
        rows = slice(start, start + at_once)
        total[rows] += matrix[rows].toarray()


def _add_product(total: FloatArray, linear_map: LinearMap, scale: FloatArray, matrix: FloatArray) -> None:
    """Add W diag(scale) matrix, (n_out, m), to a total in place, some columns at a time."""
    at_once = max(1, NUMBERS_AT_ONCE // max(linear_map.n_in, linear_map.n_out, 1))
    for start in range(0, matrix.shape[1], at_once):
        columns = slice(start, start + at_once)
        total[:, columns] += linear_map.apply(np.ascontiguousarray((scale[:, None] * matrix[:, columns]).T)).T


def _bounded(
    direct: FloatArray,
    paths: Mapping[int, FloatArray],
    radii: Mapping[int, FloatArray],
    reach: Mapping[int, FloatArray],
) -> FloatArray:
    """Return direct + sum over j of |path_j| diag(r_j) Z_j, in place of `direct`, some rows at a time."""
    for j, path in paths.items():
        if not radii[j].any():
            continue
        moved = radii[j][:, None] * reach[j]
        at_once = max(1, NUMBERS_AT_ONCE // max(path.shape[1], direct.shape[1], 1))
        for start in range(0, len(path), at_once):
            rows = slice(start, start + at_once)
            direct[rows] += np.abs(path[rows]) @ moved
    return direct


def half_step_applies(model: ImplicitModel) -> bool:
    """Return whether all slopes lie in [0, g], state by state; with abs, GELU or softmax the half-step is false."""
    slopes = global_slopes(model)
    coupled = any(block.activation.coupled for block in model.blocks)
    return not coupled and all(bool((least >= 0).all()) for least, _ in slopes.values())


def half_step_matrix(model: ImplicitModel, functionals: FloatArray | None = None, limit: int = LARGEST) -> FloatArray:
    """Return (S + |C (I - diag(g) A)^-1 diag(g) B + D|) / 2, shape (q, p), rounded upward.

    Raises:
        UnsupportedModelError: where a slope may be negative or states are coupled: the formula is false there.
    """
    if not model.is_feed_forward:
        raise UnsupportedModelError(("the half-step is for feed-forward models; use the method centre-radius",))
    if not half_step_applies(model):
        raise UnsupportedModelError(("the half-step needs slopes that are never negative; use method centre-radius",))
    slopes = global_slopes(model)
    greatest = {k: most for k, (_, most) in slopes.items()}
    signed = signed_matrix(model, greatest, functionals)
    whole = paper_matrix(model, functionals, greatest)
    total = whole * (1 + gamma(8)) + np.abs(signed) + _losses(model, functionals, greatest)
    return np.asarray(total / 2)


def best_matrix(model: ImplicitModel, functionals: FloatArray | None = None, limit: int = LARGEST) -> FloatArray:
    """Return the entrywise least of the matrices that apply to the model and fit into memory: all are valid."""
    names = applicable_methods(model, limit)
    if model.is_feed_forward:
        return np.asarray(np.minimum.reduce([METHODS[name](model, functionals, limit) for name in names]))
    found: list[FloatArray] = []
    refusals: list[InvalidInputError] = []
    for name in names:  # what proves a bound of a loop is known only once it was tried
        try:
            found.append(METHODS[name](model, functionals, limit))
        except (UnsupportedModelError, MemoryLimitError) as error:
            refusals.append(error)
    if not found:
        raise refusals[0]
    return np.asarray(np.minimum.reduce(found))


def applicable_methods(model: ImplicitModel, limit: int = LARGEST) -> tuple[str, ...]:
    """Return the methods that "best" takes the least of."""
    coupled = any(block.activation.coupled for block in model.blocks)
    if not model.is_feed_forward:
        return ("paper" if coupled else "centre-radius", "monotone", "gains")
    names = ["paper"]
    if not coupled and centre_radius_bytes(model) <= limit:
        names.append("centre-radius")
    elif half_step_applies(model):  # never below the centre-radius matrix, but there for models of any size
        names.append("half-step")
    return tuple(names)


METHODS: Final[Mapping[str, Callable[[ImplicitModel, FloatArray | None, int], FloatArray]]] = MappingProxyType(
    {
        "paper": global_paper,
        "half-step": half_step_matrix,
        "centre-radius": global_centre_radius,
        "monotone": global_monotone,
        "gains": global_gains,
        "best": best_matrix,
    }
)
"""Name -> sensitivity matrix, cheap ones first."""
