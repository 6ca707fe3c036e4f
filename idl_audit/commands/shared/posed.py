"""What a proof about a VNN-LIB 2 query is about: the model of all networks, and in each box what is to be refuted.

Whoever decides and whoever verifies make it anew, from the query's text and the files of the networks alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from idl_audit.commands.shared.assertions import AskedBox, AskedQuery
from idl_audit.implicit.as_written import as_written
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.unfused import unfused
from idl_audit.implicit.unrounded import unrounded_outputs
from idl_audit.measure.reachability import independent_pairs
from idl_audit.proof.bounds import Interval
from idl_audit.proof.exact.point import ExactNetwork
from idl_audit.proof.exact.ranges import ExactRanges
from idl_audit.proof.float_margins import SPARE, Arithmetic, FloatMargins, Unbounded
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.rows import with_sums
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.query import Query


@dataclass(frozen=True, eq=False)
class Posed:
    """A query with the model of its networks."""

    asked: AskedQuery
    model: ImplicitModel

    @cached_property
    def arithmetic(self) -> Arithmetic:
        """What unsat is to be proved for: the floats that the query declares, or real arithmetic."""
        if self.asked.is_real:
            return None
        assert self.asked.graph is not None
        try:
            written = as_written(self.asked.graph)
        except UnsupportedModelError as error:
            return Unbounded(error.problems)
        return FloatMargins(written, self.model, unrounded=unrounded_outputs(written))

    @cached_property
    def exact(self) -> ExactNetwork | None:
        """Exact arithmetic, for queries of real numbers."""
        graph = self.asked.graph
        return ExactNetwork(self.model, lambda: unfused(graph)) if self.asked.is_real and graph is not None else None

    def left(self, box: AskedBox) -> Query:
        """Return the query without the alternatives that exact bounds of their rows refute, without bounds as well."""
        query, arithmetic = box.query, self.arithmetic
        if isinstance(arithmetic, Unbounded) or not self.model.is_feed_forward:
            return query
        inputs = Interval.of_boxes(query.box)
        inputs.lo[:, list(box.unbounded)], inputs.hi[:, list(box.unbounded)] = -np.inf, np.inf
        with np.errstate(all="ignore"):
            states = interval_bounds(self.model, inputs)
        ranges = ExactRanges(self.model, states.x, box.lo, box.hi)
        left = []
        for alternative in query.alternatives:
            whole = with_sums(alternative)
            slack = np.zeros(len(whole.rows))
            if arithmetic is not None:
                slack = arithmetic.over(inputs, states).of(whole.rows)[0] * SPARE
            if not ranges.refutes(whole, slack):
                left.append(alternative)
        return replace(query, alternatives=tuple(left))

    def says_all(self, box: AskedBox, query: Query) -> bool:
        """Return whether what is proved of a query over its box holds where inputs go on beyond it."""
        if not box.unbounded:
            return True
        read = np.any([(one.rows != 0).any(axis=0) for one in query.alternatives], axis=0)
        return bool(independent_pairs(self.model)[read][:, list(box.unbounded)].all())

    @property
    def parts(self) -> Iterator[tuple[AskedBox, Query]]:
        """Yield the boxes in which something is left, with what it is."""
        for box in self.asked.boxes:
            query = self.left(box)
            if query.alternatives or box.is_whole:
                yield box, query
