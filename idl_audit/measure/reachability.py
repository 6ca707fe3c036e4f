"""Independence of outputs from inputs, proved on the pattern of nonzeros (docs/mathematics.md, section 5.6).

Output i depends on input j only where a chain of nonzero coefficients leads from u_j to y_i. S_ij == 0.0 proves nothing
of the kind: products underflow and terms cancel. So zeros and ones are pushed backwards through the network, and after
every step whatever is not 0 becomes 1 again.

Elsewhere: dependency, information flow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from idl_audit.implicit.activations import Activation
from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.upward import patterns
from idl_audit.measure.sensitivity import identity_rows, row_parts
from idl_audit.values.arrays import BoolArray
from idl_audit.values.errors import UnsupportedModelError


def independent_pairs(model: ImplicitModel) -> BoolArray:
    """Return where output i is proved not to depend on input j, shape (q, p); False means: no proof.

    A coefficient counts as nonzero where it may be one: where the stored one is, or where what rounding did to it
    (`slack`) may have hidden it. A block that reads itself is followed until nothing new is reached; such a model must
    be well-posed.

    Raises:
        UnsupportedModelError: where a block reads a newer one.
    """
    if any(k < i for i, row in enumerate(model.rows) for k in row.states):
        raise UnsupportedModelError(("independence is known where blocks read only themselves and older blocks",))
    reached = np.zeros((model.n_outputs, model.n_inputs), np.bool_)
    for rows in row_parts(model, model.n_outputs):
        reached[rows] = _reached(model, identity_rows(model, rows) > 0)
    return ~reached


def _reached(model: ImplicitModel, outputs: BoolArray) -> BoolArray:
    """Return what some outputs may depend on, (r, q) -> (r, p)."""
    reached = _Reached(np.zeros((len(outputs), model.n_inputs), np.bool_))
    reached.pull(model.output, outputs)
    for k, block in enumerate(model.blocks):
        found = reached.states.pop(k, None)
        if found is not None:
            own = model.rows[k].states.get(k)
            behind = _behind(block.activation, found) if own is None else _closed(own, block.activation, found)
            reached.pull(model.rows[k], behind, but=k)
    return reached.inputs


@dataclass
class _Reached:
    """What the outputs depend on, as far as it is known: one row for each output."""

    inputs: BoolArray
    states: dict[int, BoolArray] = field(default_factory=dict)

    def pull(self, row: Affine, behind: BoolArray, *, but: int = -1) -> None:
        """Add what the pre-activations `behind`, shape (q, size of the row), read."""
        for k, linear_map in row.states.items():
            if k != but:
                read = _read(patterns(linear_map), behind)
                self.states[k] = self.states[k] | read if k in self.states else read
        if row.input is not None:
            self.inputs |= _read(patterns(row.input), behind)


def _behind(activation: Activation, found: BoolArray) -> BoolArray:
    """Return the pre-activations that the states found depend on: their own, and their group's where they couple."""
    return activation.read_by(found)


def _closed(own: LinearMap, activation: Activation, found: BoolArray) -> BoolArray:
    """Return the pre-activations behind the states found and behind all states that these read in their own block."""
    maps = patterns(own)
    behind = _behind(activation, found)
    while True:
        more = behind | _behind(activation, _read(maps, behind))
        if (more == behind).all():
            return behind
        behind = more


def _read(maps: list[LinearMap], rows: BoolArray) -> BoolArray:
    """Return which entries the given rows of a map read, shape (q, n_out) -> (q, n_in).

    Sums of zeros and ones: each is 0 or at least 1, and 1/2 tells them apart whatever rounding does.
    """
    ones = rows.astype(np.float64)
    return np.asarray(np.logical_or.reduce([pattern.adjoint(ones) > 0.5 for pattern in maps]))
