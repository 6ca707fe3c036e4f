"""The largest certified and the smallest falsified radius: brackets of the true one, and only of what was decided."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.decide.ladder import Result
from idl_audit.decide.largest import LEAST, NEAR, Search
from idl_audit.values.verdicts import Reason, Verdict

CERTIFIED, FALSIFIED = Result(Verdict.CERTIFIED, 0, lowers=(1.0,)), Result(Verdict.FALSIFIED, 0)
UNKNOWN = Result(Verdict.UNKNOWN, 0, reason=Reason.RELAXATION_GAP)


def searched(proved_to: float, broken_from: float, greatest: float, *, reach: float | None = None) -> tuple:
    asked: list[float] = []

    def verdict(radius: float) -> Result:
        asked.append(radius)
        return CERTIFIED if radius <= proved_to else FALSIFIED if radius >= broken_from else UNKNOWN

    search = Search(verdict, lambda radius, found: radius if reach is None else max(broken_from, reach), greatest)
    search.run(verdict(greatest))
    return search, asked


@settings(deadline=None)
@given(proved=st.floats(0.0, 2.0), gap=st.sampled_from([1e-12, 0.01, 0.5]), greatest=st.floats(0.01, 1.0))
def test_both_ends_are_found_to_one_per_cent(proved: float, gap: float, greatest: float) -> None:
    broken = proved + gap
    search, asked = searched(proved, broken, greatest)
    assert search.tried == len(asked) == len(set(asked))
    assert all(0 < radius <= greatest for radius in asked)
    tell = lambda high: max(NEAR * high, LEAST * greatest)  # noqa: E731
    if search.certified is not None:
        assert search.certified in asked
        assert search.certified <= proved
        assert search.proof is CERTIFIED
    if search.falsified is not None:
        assert search.falsified >= broken
    if proved >= greatest:
        assert (search.certified, search.falsified, search.tried) == (greatest, None, 1)
        return
    assert proved - (search.certified or 0.0) <= tell(greatest)
    if broken <= greatest:
        assert search.falsified is not None
        assert search.falsified - broken <= tell(greatest)
    else:
        assert search.falsified is None
    assert search.tried < 60


def test_a_point_that_was_found_tells_the_radius_at_which_it_lies() -> None:
    search, asked = searched(0.1, 0.2, 1.0, reach=0.25)
    assert search.falsified is not None
    assert search.falsified <= 0.25
    assert 0.5 in asked or min(asked) < 0.25


@pytest.mark.parametrize("verdict", [Verdict.CLEAN_WRONG, Verdict.CERTIFIED])
def test_nothing_is_looked_for_where_the_greatest_radius_says_it(verdict: Verdict) -> None:
    search = Search(lambda radius: pytest.fail("decided"), lambda radius, found: radius, 1.0)
    search.run(Result(verdict, 0, lowers=(1.0,)))
    assert search.certified == (1.0 if verdict is Verdict.CERTIFIED else None)
    assert search.falsified is None


def test_a_proof_beyond_what_was_unknown_counts() -> None:
    """Searches are no laws: unknown at a half, certified at three quarters."""
    verdicts = {1.0: FALSIFIED, 0.5: UNKNOWN, 0.75: CERTIFIED}

    def decide(radius: float) -> Result:
        return verdicts.get(radius, CERTIFIED if radius < 0.5 else FALSIFIED if radius > 0.75 else UNKNOWN)

    search = Search(decide, lambda radius, found: radius, 1.0)
    search.run(FALSIFIED)
    assert search.certified == 0.75
    assert search.falsified is not None
    assert 0.75 < search.falsified <= 0.75 + NEAR
