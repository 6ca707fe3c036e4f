"""Mixed-integer programs, of which only the sign of the optimum is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from idl_audit.search.linprog.data import scaled_cost
from idl_audit.search.linprog.outcomes import Outcome
from idl_audit.search.linprog.program import Program
from idl_audit.values.arrays import FloatArray


@dataclass(frozen=True)
class SignSearch:
    """How the search for a point with a negative objective ended."""

    outcome: Outcome
    accepted: bool
    """Whether a point was accepted."""
    denied: bool
    """Whether the solver says that there is no such point: its word, and no proof."""
    nodes: int = 0
    """Of its tree."""


class MixedIntegerProgram(Program):
    """min cost.x over row_lo <= M x <= row_hi, lo <= x <= hi, some columns integers; only the sign of it is wanted."""

    options = MappingProxyType({"output_flag": False, "threads": 1, "small_matrix_value": 1e-12})

    def find_negative(
        self,
        cost: FloatArray,
        *,
        offset: float,
        time_limit: float,
        propose: Callable[[FloatArray], bool],
        most_nodes: int | None = None,
    ) -> SignSearch:
        """Look for a point with cost.x + offset < 0, until one is accepted or the solver says that there is none.

        Args:
            cost: one number a column.
            offset: added to cost.x.
            time_limit: in seconds.
            propose: is given every better point that the solver comes to, shape (columns,); says whether to stop.
            most_nodes: nodes of its tree, at most.
        """
        scaled, factor = scaled_cost(cost)
        watched = _Watched(propose, offset * factor, self._n_columns)
        if most_nodes is not None:
            self._took(self._solver.setOptionValue("mip_max_nodes", most_nodes), "a limit of nodes")
        self._solver.cbMipImprovingSolution.subscribe(watched.look)
        self._solver.cbMipInterrupt.subscribe(watched.stop)
        try:
            outcome = self._run(scaled, time_limit, aside=True)
        finally:
            watched.is_over = True
            if not self._is_lost:
                self._solver.cbMipImprovingSolution.unsubscribe(watched.look)
                self._solver.cbMipInterrupt.unsubscribe(watched.stop)
        if watched.failed:
            raise watched.failed[0]
        if self._is_lost or self._is_crossed:
            return SignSearch(outcome, watched.accepted, self._is_crossed and not watched.accepted)
        info = self._solver.getInfo()
        denied = watched.denied
        if outcome is Outcome.OPTIMAL:
            # without integers HiGHS solves a linear program, and fills no bound in
            bound = info.mip_dual_bound if self._has_integers else info.objective_function_value
            denied = bool(bound + watched.offset > 0)
            watched.offer(np.array(self._solver.getSolution().col_value))
        if watched.accepted or (denied and outcome is Outcome.INTERRUPTED):
            outcome = Outcome.STOPPED
        return SignSearch(outcome, watched.accepted, denied and not watched.accepted, max(0, int(info.mip_node_count)))


class _Watched:
    """What the solver says while it works, perhaps in a thread of its own."""

    def __init__(self, propose: Callable[[FloatArray], bool], offset: float, n_columns: int) -> None:
        self._propose, self.offset, self._n_columns = propose, offset, n_columns
        self.accepted, self.denied, self.is_over = False, False, False
        self.failed: list[BaseException] = []

    def offer(self, point: FloatArray) -> None:
        """Show a point to whoever asked for it."""
        if not self.accepted and point.size == self._n_columns and np.isfinite(point).all():
            self.accepted = self._propose(point)

    def look(self, event: Any) -> None:
        """Take a better point."""
        if self.is_over:
            return
        try:
            self.offer(np.array(event.data_out.mip_solution))
        except BaseException as error:  # it must not pass through the solver's own code
            self.failed.append(error)

    def stop(self, event: Any) -> None:
        """Say whether to go on."""
        try:
            self.denied = self.denied or bool(event.data_out.mip_dual_bound + self.offset > 0)
        except BaseException as error:  # Ctrl-C may come up here
            self.failed.append(error)
        event.data_in.user_interrupt = bool(self.accepted or self.denied or self.failed or self.is_over)
