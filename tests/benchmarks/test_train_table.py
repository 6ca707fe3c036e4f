"""The table of training: planted inputs act and no others, and a row says what was found."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.train_table import ACTING, INPUTS, blog, by_regression, even, selection_rows


@pytest.mark.parametrize("make", [blog, even])
def test_only_planted_inputs_are_there_to_be_found(make) -> None:
    case = make(0)
    idle = np.setdiff1d(np.arange(INPUTS), case.acting)
    alone = np.abs(np.corrcoef(np.abs(case.u).T, case.y[:, 0])[:-1, -1])
    assert alone[idle].max() < 0.25
    assert len(case.u) == len(case.y)
    assert len(by_regression(case)) == len(case.acting)


def test_a_row_counts_zeros_and_proofs() -> None:
    (row,) = selection_rows(blog, 1, states=10, solver="bcd", seconds=10.0)
    assert row.startswith(f"| 0 | {ACTING} of {ACTING} | {INPUTS - ACTING} of {INPUTS - ACTING} | {INPUTS - ACTING} |")
