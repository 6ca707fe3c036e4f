"""Implicit models put together: cascade, sum, concatenation, feedback (docs/mathematics.md, section 9.4).

    cascade    y = g(f(u))           A = [[A_g, B_g C_f], [0, A_f]], B = [B_g D_f; B_f], C = [C_g, D_g C_f], D = D_g D_f
    sum        y = f(u) + g(u), each `weighted` where it is asked for
    concat     y = (f(u), g(u))
    feedback   y = f(u + g(y))       with E = (I - D_f D_g)^-1, see `feedback`

Constants follow by the same algebra; every block keeps its activation. What rounding did is in the result's
coefficients (`relative`, `slack`, `constant_error`), as for a converted network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.activations.parts import group_of, restricted, side_by_side
from idl_audit.implicit.affine import INPUT, AffineForm
from idl_audit.implicit.components import block_order, gathered
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock, dense
from idl_audit.implicit.wellposed import MOST_STATES, perron_root
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.errors import OptionError, UnsupportedModelError
from idl_audit.values.rounding import TINY, gamma


def cascade(first: ImplicitModel, second: ImplicitModel) -> ImplicitModel:
    """Return y = second(first(u)); it is well-posed exactly where both are.

    Raises:
        OptionError: where the outputs of `first` are not as many as the inputs of `second`.
    """
    if first.n_outputs != second.n_inputs:
        raise OptionError(
            f"a cascade feeds the outputs of the first model to the second: {first.n_outputs:,} outputs do not fit "
            f"{second.n_inputs:,} inputs"
        )
    _check_whole(first, "the first model of a cascade")
    between = _form(first.output, (1, first.n_outputs))
    readers = [row.input for row in (*second.rows, second.output) if row.input is not None]
    blocks, rows, offset = first.blocks, first.rows, len(second.blocks)
    if sum(map(between.product_nnz, readers)) > sum(reader.nnz for reader in readers) + between.nnz:
        # multiplied out, B_g C_f would hold more entries than its factors: an identity block stands between them
        cut = StateBlock("outputs of the first", "compose", ACTIVATIONS["identity"](), first.output_shape)
        blocks, rows = (cut, *blocks), tuple(_shifted(row, 1) for row in (first.output, *rows))
        between = AffineForm.of_source(0, between.shape)
    moved = AffineForm(
        between.shape,
        {_moved(k, offset): m for k, m in between.terms.items()},
        between.constant,
        between.constant_error,
    )
    return ImplicitModel(
        (*map(_plain_block, second.blocks), *map(_plain_block, blocks)),
        (*(_fed(row, moved) for row in second.rows), *(_shifted(row, offset) for row in rows)),
        _fed(second.output, moved),
        first.input_shape,
        second.output_shape,
        stripped_output=second.stripped_output,
        input_parts=first.input_parts,
    )


def total(first: ImplicitModel, second: ImplicitModel) -> ImplicitModel:
    """Return y = first(u) + second(u). Raises OptionError where the shapes differ."""
    _check_inputs(first, second, "a sum")
    if first.n_outputs != second.n_outputs:
        raise OptionError(f"a sum needs as many outputs in both: {first.n_outputs:,} and {second.n_outputs:,}")
    for name, model in (("first", first), ("second", second)):
        _check_whole(model, f"the {name} model of a sum")
    shape = (1, first.n_outputs)
    output = _form(first.output, shape).plus(_form(_shifted(second.output, len(first.blocks)), shape))
    return _beside(first, second, _row(output), first.output_shape)


def weighted(model: ImplicitModel, weight: float) -> ImplicitModel:
    """Return y = weight model(u), of a model whose outputs are all there."""
    _check_whole(model, "a model of a weighted sum")
    shape = (1, model.n_outputs)
    scaled = _form(model.output, shape).mapped(Selection.diagonal(np.full(model.n_outputs, weight)), shape)
    return replace(model, output=_row(scaled))


def concat(first: ImplicitModel, second: ImplicitModel) -> ImplicitModel:
    """Return y = (first(u), second(u)), the outputs one after the other. Raises OptionError where inputs differ."""
    _check_inputs(first, second, "a concatenation")
    for name, model in (("first", first), ("second", second)):
        _check_whole(model, f"the {name} model of a concatenation")
    size = first.n_outputs + second.n_outputs
    above = Selection(
        index=np.concatenate([np.arange(first.n_outputs), np.full(second.n_outputs, -1)]), size_in=first.n_outputs
    )
    below = Selection(
        index=np.concatenate([np.full(first.n_outputs, -1), np.arange(second.n_outputs)]), size_in=second.n_outputs
    )
    upper = _form(first.output, (1, first.n_outputs)).mapped(above, (1, size))
    lower = _form(_shifted(second.output, len(first.blocks)), (1, second.n_outputs)).mapped(below, (1, size))
    return _beside(first, second, _row(upper.plus(lower)), (1, size))


def feedback(plant: ImplicitModel, controller: ImplicitModel) -> ImplicitModel:
    """Return y = f(u + g(y)): the plant f with the controller g in its feedback loop.

    With E = (I - D_f D_g)^-1,

        A = [[A_f + B_f D_g E C_f, B_f C_g + B_f D_g E D_f C_g], [B_g E C_f, A_g + B_g E D_f C_g]],
        B = [B_f + B_f D_g E D_f; B_g E D_f],   C = [E C_f, E D_f C_g],   D = E D_f.

    States that read each other in a circle become one block with a mixed activation.

    Raises:
        OptionError: where outputs and inputs do not fit.
        UnsupportedModelError: where E does not exist, or nothing proves that the loop is well-posed.
    """
    if plant.n_outputs != controller.n_inputs or controller.n_outputs != plant.n_inputs:
        raise OptionError(
            f"a feedback loop needs a controller from the plant's {plant.n_outputs:,} outputs to its "
            f"{plant.n_inputs:,} inputs; this one goes from {controller.n_inputs:,} to {controller.n_outputs:,}"
        )
    for name, model in (("plant", plant), ("controller", controller)):
        _check_whole(model, f"the {name}")
        model.refuse_jumps(f"nothing can prove that a loop around the {name} has one state for every input")
    n = plant.n_states + controller.n_states
    if n > MOST_STATES:
        raise UnsupportedModelError((f"a loop of {n:,} states is too large: at most {MOST_STATES:,} can be proved",))
    f, g = _flat_output(plant, 0), _flat_output(controller, 1)
    solved = _inverse(_direct_loop(f.terms.get(INPUT), g.terms.get(INPUT), plant.n_outputs))
    # y = E (C_f x_f + D_f (u + C_g x_g + d_g) + d_f)
    u = AffineForm.of_source(INPUT, (1, plant.n_inputs))
    open_loop = AffineForm(f.shape, {k: m for k, m in f.terms.items() if k != INPUT}, f.constant, f.constant_error)
    from_controller = AffineForm(
        g.shape, {k: m for k, m in g.terms.items() if k != INPUT}, g.constant, g.constant_error
    )
    if INPUT in f.terms:
        open_loop = open_loop.plus(from_controller.plus(u).mapped(f.terms[INPUT], f.shape))
    y = open_loop.mapped(solved, f.shape)
    into_plant = from_controller.plus(u)
    if INPUT in g.terms:
        into_plant = into_plant.plus(y.mapped(g.terms[INPUT], g.shape))
    z = (_flat_states(plant, 0, into_plant), _flat_states(controller, 1, y))
    model = _in_blocks(plant, controller, z, y)
    _check_well_posed(model)
    return model


def _check_well_posed(model: ImplicitModel) -> None:
    """Refuse a loop that nothing proves well-posed, with the proofs that failed."""
    for loop in model.loops.values():
        if loop.proof is not None:
            continue
        root = perron_root(loop.block.coupling.matrix @ loop.A.magnitude)
        others = "loop(diag), loop(1), loop(alpha)" if loop.coupling is None else "one norm a group"
        raise UnsupportedModelError(
            (
                f"nothing proves that this feedback loop has one state for every input: lambda_PF(Gamma |A|) = "
                f"{root:.4g} is not below 1, and neither {others} nor the monotone proof holds for its "
                f"{loop.block.size} states",
            )
        )


def _check_inputs(first: ImplicitModel, second: ImplicitModel, what: str) -> None:
    if first.n_inputs != second.n_inputs:
        raise OptionError(f"{what} needs models with as many inputs: {first.n_inputs:,} and {second.n_inputs:,}")


def _check_whole(model: ImplicitModel, where: str) -> None:
    """Refuse a model without its last operator where more than the order of its outputs matters."""
    if model.stripped_output:
        raise OptionError(
            f"{where} leaves out its last operator, {model.stripped_output}, and its outputs are used as numbers here; "
            "export the network without it"
        )


# --- rows and forms ---------------------------------------------------------------------------------------------------


def _moved(source: int, offset: int) -> int:
    return source if source == INPUT else source + offset


def _form(row: Affine, shape: tuple[int, ...]) -> AffineForm:
    terms: dict[int, LinearMap] = dict(row.states)
    if row.input is not None:
        terms[INPUT] = row.input
    return AffineForm(shape, terms, row.constant, row.constant_error)


def _row(form: AffineForm) -> Affine:
    states = {k: linear_map for k, linear_map in form.terms.items() if k != INPUT}
    return Affine(MappingProxyType(states), form.terms.get(INPUT), form.constant, form.constant_error)


def _shifted(row: Affine, offset: int) -> Affine:
    return replace(row, states={k + offset: linear_map for k, linear_map in row.states.items()})


def _plain_block(block: StateBlock) -> StateBlock:
    """Return the block without what it knows of another one's number."""
    return replace(block, maximum=None)


def _fed(row: Affine, inputs: AffineForm) -> Affine:
    """Return the row with `inputs` in place of u."""
    own = AffineForm((1, row.size), dict(row.states), row.constant, row.constant_error)
    return _row(own if row.input is None else own.plus(inputs.mapped(row.input, (1, row.size))))


def _beside(
    first: ImplicitModel, second: ImplicitModel, output: Affine, output_shape: tuple[int, ...]
) -> ImplicitModel:
    """Return both models on one input, with an output of both."""
    offset = len(first.blocks)
    return ImplicitModel(
        (*map(_plain_block, first.blocks), *map(_plain_block, second.blocks)),
        (*first.rows, *(_shifted(row, offset) for row in second.rows)),
        output,
        first.input_shape,
        output_shape,
        input_parts=first.input_parts,
    )


# --- feedback: dense, over all states of a model at once --------------------------------------------------------------


def _dense_row(model: ImplicitModel, row: Affine) -> LinearMap | None:
    """Return what the row reads of all states as one dense map; None where it reads none."""
    if not row.states:
        return None
    matrix = np.zeros((row.size, model.n_states))
    error = np.zeros_like(matrix)
    for k, linear_map in row.states.items():
        own = dense(linear_map)
        columns = slice(model.offsets[k], model.offsets[k + 1])
        matrix[:, columns] = own.matrix
        if own.error is not None:
            error[:, columns] = own.error
    return Dense(matrix=matrix, slack=Dense(matrix=error) if error.any() else None)


def _flat_output(model: ImplicitModel, source: int) -> AffineForm:
    """Return y over the flat state, named `source`, and the input."""
    return _flat_form(model, model.output, source)


def _flat_form(model: ImplicitModel, row: Affine, source: int) -> AffineForm:
    states = _dense_row(model, row)
    terms = {} if states is None else {source: states}
    if row.input is not None:
        own = dense(row.input)
        terms[INPUT] = Dense(matrix=own.matrix, slack=None if own.error is None else Dense(matrix=own.error))
    return AffineForm((1, row.size), terms, row.constant, row.constant_error)


def _flat_states(model: ImplicitModel, source: int, inputs: AffineForm) -> list[AffineForm]:
    """Return z of every block over both flat states and the input, `inputs` in place of the model's own."""
    found = []
    for row in model.rows:
        own = _flat_form(model, row, source)
        free = AffineForm(
            own.shape, {k: m for k, m in own.terms.items() if k != INPUT}, own.constant, own.constant_error
        )
        found.append(free.plus(inputs.mapped(own.terms[INPUT], own.shape)) if INPUT in own.terms else free)
    return found


def _direct_loop(forward: LinearMap | None, back: LinearMap | None, n: int) -> LinearMap:
    """Return I - D_f D_g."""
    identity = AffineForm.of_source(0, (1, n))
    if forward is None or back is None:
        return identity.terms[0]
    product = identity.mapped(back, (1, back.n_out)).mapped(forward, (1, n)).scaled(-1.0)
    return identity.plus(product).terms[0]


def _inverse(matrix: LinearMap) -> LinearMap:
    """Return M^-1 with a proved bound on every entry's error.

    With R about M^-1 and F = I - R M, ||F||_inf = f < 1: M^-1 - R = F M^-1, and so |M^-1 - R| <= X + f / (1 - f) max X,
    X = |F| |R|, the maximum along each column.

    Raises:
        UnsupportedModelError: where f < 1 cannot be shown.
    """
    if isinstance(matrix, Selection) and matrix.is_identity:
        return matrix
    found = dense(matrix)
    n = len(found.matrix)
    try:
        R = np.linalg.inv(found.matrix)
    except np.linalg.LinAlgError:
        R = np.full((n, n), np.nan)
    rounding = gamma(2 * n + 8)
    with np.errstate(all="ignore"):
        lost = rounding * (np.abs(R) @ found.magnitude + np.eye(n))
        if found.error is not None:
            lost = lost + np.abs(R) @ found.error * (1 + rounding)
        F = (np.abs(np.eye(n) - R @ found.matrix) + lost) * (1 + gamma(8)) + TINY
        norm = float(F.sum(axis=1).max(initial=0.0)) * (1 + rounding)
    if not norm < 1:  # NaN is not below 1
        raise UnsupportedModelError(
            (
                "the direct terms of this feedback loop have no solution: I - D_f D_g is singular, or too near to it "
                "for its inverse to be proved",
            )
        )
    X = F @ np.abs(R) * (1 + rounding)
    error = (X + norm / (1 - norm) * X.max(axis=0, initial=0.0)) * (1 + gamma(16)) + TINY
    return Dense(matrix=np.asarray(R, np.float64), slack=Dense(matrix=error))


def _in_blocks(
    plant: ImplicitModel, controller: ImplicitModel, z: tuple[list[AffineForm], list[AffineForm]], y: AffineForm
) -> ImplicitModel:
    """Return the model cut into blocks along its strongly connected components."""
    blocks = [*plant.blocks, *controller.blocks]
    forms = [*z[0], *z[1]]
    sizes = (plant.n_states, controller.n_states)
    states, inputs = _stacked(forms, sizes, plant.n_inputs)
    c, d = _stacked([y], sizes, plant.n_inputs)
    starts = np.concatenate([[0], np.cumsum([block.size for block in blocks])]).astype(np.int64)
    owner = np.repeat(np.arange(len(blocks)), [block.size for block in blocks])
    groups, reached = [], 0
    for block in blocks:
        own = group_of(block.activation, block.size)
        groups.append(own + reached)
        reached += int(own.max(initial=-1)) + 1
    pattern = sp.csr_array((np.abs(states[0]) + states[1]) != 0).astype(np.float64)
    order = block_order(pattern, owner, np.concatenate([np.zeros(0, np.int64), *groups]))[::-1]
    every = np.arange(y.size)
    constant = np.concatenate([np.zeros(0), *(form.constant for form in forms)])
    rows = []
    for rows_of in order:
        # a block of several others has the largest of their errors
        error = max(forms[int(j)].constant_error for j in np.unique(owner[rows_of]))
        rows.append(Affine(_cut(states, rows_of, order), _piece(inputs, rows_of, None), constant[rows_of], error))
    return ImplicitModel(
        tuple(_merged(blocks, owner[found], found - starts[owner[found]]) for found in order),
        tuple(rows),
        Affine(_cut(c, every, order), _piece(d, every, None), y.constant, y.constant_error),
        plant.input_shape,
        plant.output_shape,
        input_parts=plant.input_parts,
    )


Pair = tuple[FloatArray, FloatArray]
"""A matrix, and bounds of its entries' errors."""


def _stacked(forms: list[AffineForm], sizes: tuple[int, int], n_inputs: int) -> tuple[Pair, Pair]:
    """Return what the forms read of both flat states, side by side, and of the input."""
    rows = sum(form.size for form in forms)
    widths = {0: (0, sizes[0]), 1: (sizes[0], sizes[0] + sizes[1])}
    states = np.zeros((rows, sum(sizes))), np.zeros((rows, sum(sizes)))
    inputs = np.zeros((rows, n_inputs)), np.zeros((rows, n_inputs))
    start = 0
    for form in forms:
        for source, linear_map in form.terms.items():
            target, (low, high) = (inputs, (0, n_inputs)) if source == INPUT else (states, widths[source])
            own = dense(linear_map)
            target[0][start : start + form.size, low:high] = own.matrix
            if own.error is not None:
                target[1][start : start + form.size, low:high] = own.error
        start += form.size
    return states, inputs


def _cut(pair: Pair, rows: IntArray, order: list[IntArray]) -> Mapping[int, LinearMap]:
    found = {j: _piece(pair, rows, columns) for j, columns in enumerate(order)}
    return {j: piece for j, piece in found.items() if piece is not None}


def _piece(pair: Pair, rows: IntArray, columns: IntArray | None) -> LinearMap | None:
    """Return a submatrix with its errors; None where it is zero."""
    columns = np.arange(pair[0].shape[1]) if columns is None else columns
    matrix, error = gathered(pair[0], rows, columns), gathered(pair[1], rows, columns)
    if not (matrix.any() or error.any()):
        return None
    return Dense(matrix=matrix, slack=Dense(matrix=error) if error.any() else None)


def _merged(blocks: list[StateBlock], owner: IntArray, states: IntArray) -> StateBlock:
    """Return the block of these states, taken from one or several blocks."""
    pieces = np.split(np.arange(owner.size), np.flatnonzero(np.diff(owner)) + 1)
    parts, names, exponents = [], [], []
    for piece in pieces:
        block = blocks[int(owner[piece[0]])]
        parts.append((restricted(block.activation, states[piece]), len(piece)))
        names.append(block.name)
        exponents.append(np.broadcast_to(np.asarray(block.exponent, np.int64), (block.size,))[states[piece]])
    exponent = np.concatenate(exponents)
    name = names[0] if len(names) == 1 else f"loop of {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    return StateBlock(
        name,
        blocks[int(owner[0])].op if len(names) == 1 else "compose",
        side_by_side(parts),
        (1, owner.size),
        exponent=exponent if exponent.any() else 0,
    )


COMPOSITIONS: Final[Mapping[str, Callable[[ImplicitModel, ImplicitModel], ImplicitModel]]] = MappingProxyType(
    {"cascade": cascade, "sum": total, "concat": concat, "feedback": feedback}
)
"""Name -> how two models become one."""
