"""The README's tour against what its commands print today."""

from __future__ import annotations

import pytest

from benchmarks import readme_tour


@pytest.mark.slow
def test_the_tour_shows_what_the_commands_print():
    shown = readme_tour.words(readme_tour.between(readme_tour.README.read_text(encoding="utf-8")))
    today = readme_tour.words(readme_tour.tour())
    differing = [pair for pair in zip(shown, today, strict=False) if not readme_tour.same(*pair)]
    assert differing == []
    assert len(shown) == len(today)


def test_the_tour_shows_every_step():
    shown = readme_tour.between(readme_tour.README.read_text(encoding="utf-8"))
    for step in readme_tour.STEPS:
        assert f"{step.why}\n\n```\n$ idl-audit {step.line}\n" in shown


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [("1.000", "1.001", True), ("1.0", "1.1", False), ("1.5e-07,", "3e-07,", True), ("yes", "no", False)],
)
def test_figures_are_compared_with_a_tolerance(ours, theirs, expected):
    assert readme_tour.same(ours, theirs) is expected
