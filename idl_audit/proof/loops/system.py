"""One loop with everything that drives it: x = phi(A x + P w + b), w the inputs and the states of other blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from idl_audit.implicit.model import ImplicitModel, Loop, StateBlock, dense
from idl_audit.implicit.wellposed import Coefficients, Monotone, Proof, contractions, group_contractions
from idl_audit.proof.bounds import Interval
from idl_audit.proof.loops.enclosed import image, total
from idl_audit.values.arrays import FloatArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.rounding import TINY, gamma, up

MOST_STATES = 512
"""States of a loop up to which dense matrices are made for every box."""
MOST_NUMBERS = 2**24
"""Entries of P, at most."""


@dataclass(frozen=True, eq=False)
class LoopSystem:
    """The matrices of one loop, dense, with the uncertainty of their entries."""

    loop: Loop
    P: Coefficients
    """(n, number of drivers)."""
    b: FloatArray
    b_error: float
    sources: tuple[int, ...]
    """The blocks whose states stand in w, before the inputs."""
    reads_input: bool

    @property
    def A(self) -> Coefficients:
        """The loop's matrix."""
        return self.loop.A

    @property
    def block(self) -> StateBlock:
        """The loop's states."""
        return self.loop.block

    @property
    def n(self) -> int:
        """Number of states."""
        return len(self.A.matrix)

    @cached_property
    def weights(self) -> FloatArray:
        """D of the monotone inequality: those of the proof, where there are some."""
        proof = self.loop.proof
        if isinstance(proof, Monotone) and proof.weights is not None:
            return proof.weights
        return np.ones(self.n) if self.loop.weights is None else self.loop.weights

    def gradient_slopes(self, z_lo: FloatArray, z_hi: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Return (a, g) with (dx - a dz) . D (g dz - dx) >= 0 over bounds of z, a = 0 where coupled; None: unknown."""
        least, most = self.block.slopes(z_lo, z_hi)
        if self.loop.coupling is None:
            return least, most
        steepest = self.loop.coupling.steepest
        if steepest is None:
            return None
        alone = np.repeat(self.loop.coupling.sizes == 1, self.loop.coupling.sizes)
        return np.where(alone, least, 0.0), np.where(alone, most, steepest)

    def drivers(self, states: Mapping[int, Interval], inputs: Interval, i: int) -> tuple[FloatArray, FloatArray]:
        """Return (c, r), |w - c| <= r, for box i of a batch."""
        parts = [states[k] for k in self.sources] + ([inputs] if self.reads_input else [])
        lo = np.concatenate([np.zeros(0), *(part.lo[i] for part in parts)])
        hi = np.concatenate([np.zeros(0), *(part.hi[i] for part in parts)])
        centre = lo / 2 + hi / 2
        moves = (lo < centre) | (centre < hi)  # also where the halves of a denormal number are rounded
        return centre, np.where(moves, up(np.maximum(hi - centre, centre - lo)), 0.0)

    @cached_property
    def everywhere(self) -> list[tuple[FloatArray, FloatArray]]:
        """Pairs (T, N) with |dx| <= T |dw| + N |delta|, delta any change of z's constant, for all inputs."""
        return self.responses(*self.block.everywhere, search=True)

    def responses(self, least: FloatArray, most: FloatArray, *, search: bool) -> list[tuple[FloatArray, FloatArray]]:
        """Return the pairs (T, N) of every contraction that holds with these slopes."""
        one = Coefficients(np.eye(self.n))
        found = []
        proofs: list[Proof] = list(contractions(self.A, least, most, self.loop.coupling, search=search))
        if self.loop.coupling is not None:
            proofs += group_contractions(self.A, self.loop.coupling)
        for proof in proofs:
            T = proof.response(self.P, one, Coefficients(np.zeros(self.P.matrix.shape)))
            N = proof.response(one, one, Coefficients(np.zeros((self.n, self.n))))
            if T is not None and N is not None:
                found.append((T, N))
        return found


@lru_cache(maxsize=8)
def loop_system(model: ImplicitModel, k: int) -> LoopSystem | None:
    """Return the system of loop k; None where it is too large for dense matrices."""
    loop = model.loops[k]
    drive = loop.drive
    width = sum(model.blocks[j].size for j in drive.states) + model.n_inputs
    if len(loop.A.matrix) > MOST_STATES or len(loop.A.matrix) * width > MOST_NUMBERS:
        return None
    sources = tuple(sorted(drive.states))
    maps = [dense(drive.states[j]) for j in sources] + ([] if drive.input is None else [dense(drive.input)])
    n = len(loop.A.matrix)
    matrix = np.hstack([np.zeros((n, 0)), *(part.matrix for part in maps)])
    errors = [np.zeros_like(part.matrix) if part.error is None else part.error for part in maps]
    error = np.hstack([np.zeros((n, 0)), *errors])
    P = Coefficients(matrix, error if error.any() else None)
    return LoopSystem(loop, P, drive.constant, drive.constant_error, sources, drive.input is not None)


@dataclass(frozen=True, eq=False)
class Reference:
    """The state near which a box lies: x0 = phi(z0) solves the loop for z0's constant off by at most delta.

    For every state of the box: z - z0 = A (x - x0) + P (w - c) + d, |d| <= delta, with no error of the solver left out.
    """

    z: FloatArray
    x: Interval
    """phi(z0), shapes (1, n)."""
    delta: FloatArray


def reference(system: LoopSystem, centre: FloatArray, check: Check = unchecked) -> Reference:
    """Return the state that the loop settles in at w = centre, with the residual of its equation."""
    drive, drive_error = image(system.P, centre)
    z = system.loop.solve((drive + system.b)[None], check=check).z
    x = Interval(*system.block.interval(z, z))
    middle = x.lo[0] / 2 + x.hi[0] / 2
    through, error = image(system.A, middle)
    size = system.A.magnitude if system.A.error is None else system.A.magnitude + system.A.error
    error = error + drive_error + system.b_error + size @ (x.hi[0] - x.lo[0])
    right = through + drive + system.b
    rounding = gamma(8) * (np.abs(through) + np.abs(drive) + np.abs(system.b) + np.abs(z[0]))
    delta = (np.abs(z[0] - right) + error + rounding) * (1 + gamma(system.n + 16)) + TINY
    return Reference(z[0], x, delta)


def plus_identity(a: Coefficients) -> Coefficients:
    """Return A + I."""
    return total(a, Coefficients(np.eye(len(a.matrix))))
