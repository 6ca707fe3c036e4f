"""certify with a VNN-LIB 2 query: what nothing can be said of is unknown, as the standard's solver says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared.command_line import run
from tests.shared.solver_cases import model, network, one, query, save

LONG = f"{'9' * 300}.0"


@pytest.mark.parametrize(
    ("assertion", "why"),
    [
        (f"(<= (* {' '.join([LONG] * 30)} Y[0]) 1.0)", "too many digits"),
        (f"(<= (* {LONG} {LONG} Y[0]) 1.0)", "beyond the largest float64"),
    ],
)
def test_a_query_of_numbers_that_are_too_long_is_unknown(tmp_path: Path, assertion: str, why: str) -> None:
    text = query(f"(assert (and (<= X[0] 1.0) {assertion}))", declared=network("N", element="real"))
    path, files = save(tmp_path, text, {"N": model([one("Relu")])})
    found = run("certify", files["N"], path, "-f", "json")
    assert found.code == 0, found.err
    (entry,) = found.report.properties
    assert (entry.result, entry.witness, entry.problem) == ("unknown", None, None)
    (told,) = (one for one in found.report.diagnostics if one.code == "IDL508")
    assert why in told.message
