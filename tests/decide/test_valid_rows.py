"""Valid rows of tables: every verdict against the enumeration of all of them, and sets against their definition."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.data.features import Features, read_features
from idl_audit.decide.ladder import Options
from idl_audit.decide.mixed import Rows
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError
from idl_audit.values.mixed import Cell, Choice
from idl_audit.values.verdicts import Verdict
from tests.shared.small_networks import ExactModel, layered, random_network

TEXT = """
[[feature]]
name = "age"
kind = "integer"
range = [17, 90]
radius = 2
unit = "years"

[[feature]]
name = "hours"
range = [0, 60]
radius = 0.5

[[feature]]
name = "sex"
categories = ["female", "male"]
protected = true

[[feature]]
name = "job"
categories = ["a", "b", "c"]
moves = true

[[feature]]
name = "year"
kind = "fixed"
"""
ROW = np.array([18.0, 59.75, 0, 1, 1, 0, 0, 1999.0])


@pytest.fixture
def features(tmp_path: Path) -> Features:
    (tmp_path / "f.toml").write_text(TEXT)
    return read_features(tmp_path / "f.toml")


def test_rows_are_within_radii_ranges_and_categories(features: Features) -> None:
    cell = features.cell(ROW, 1.0, protected=False)
    assert [choice.values.ravel().tolist() for choice in cell.choices[:2]] == [[17, 18, 19, 20], [0, 1]]
    assert cell.choices[2].values.tolist() == np.eye(3).tolist()
    hull = cell.hull
    assert hull.inner_lo.tolist() == pytest.approx([17, 59.25, 0, 1, 0, 0, 0, 1999], abs=1e-12)
    assert hull.inner_hi.tolist() == pytest.approx([20, 60, 0, 1, 1, 1, 1, 1999], abs=1e-12)
    good = ROW.copy()
    good[[0, 1]] = 20, 60
    assert cell.contains(np.array([ROW, good], np.float32)).all()
    for column, value in ((0, 18.5), (0, 21), (1, 60.5), (1, 59), (2, 1), (4, 0.5), (5, 1), (7, 2000)):
        bad = ROW.copy()
        bad[column] = value
        assert not cell.contains(bad[None].astype(np.float32))[0], (column, value)


def test_protected_features_move_alone_and_to_all_their_values(features: Features) -> None:
    cell = features.cell(ROW, 0.0, protected=True)
    assert cell.hull.lo.tolist() == [18, 59.75, 0, 0, 1, 0, 0, 1999]
    assert cell.hull.hi.tolist() == [18, 59.75, 1, 1, 1, 0, 0, 1999]
    assert cell.n_choices == 2
    other = ROW.copy()
    other[[2, 3]] = 1, 0
    assert features.changes(ROW, other) == (("sex", "male", "female"),)
    older = ROW.copy()
    older[0] = 20
    assert features.changes(ROW, older) == (("age", "18 years", "20 years"),)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (0, 18.5, "whole steps of 1"),
        (0, 91, "outside its range 17 to 90"),
        (1, -1, "outside its range"),
        (3, 0.5, "no category"),
        (4, 0, "no category"),
    ],
)
def test_a_sample_that_is_no_valid_row_is_refused(features: Features, column: int, value: float, words: str) -> None:
    row = ROW.copy()
    row[column] = value
    with pytest.raises(DataError, match=words):
        features.cell(row, 1.0, protected=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must have"),
        ("x = 1", "must have"),
        ("[[feature]]\nkind = 'integer'", "has no name"),
        ("[[feature]]\nname = 'a'\nkind = 'real'", "a kind that is none of"),
        ("[[feature]]\nname = 'a'\ncolour = 'red'", "'colour', which is not known"),
        ("[[feature]]\nname = 'a'\nkind = 'categorical'", "list of categories"),
        ("[[feature]]\nname = 'a'\ncategories = ['x']", "two texts or more"),
        ("[[feature]]\nname = 'a'\ncategories = ['x', 'x']", "twice"),
        ("[[feature]]\nname = 'a'\nrange = [1, 1]", "LO < HI"),
        ("[[feature]]\nname = 'a'\nrange = [1, nan]", "LO < HI"),
        ("[[feature]]\nname = 'a'\nstep = 2", "integer features alone"),
        ("[[feature]]\nname = 'a'\nradius = -1", "above 0"),
        ("[[feature]]\nname = 'a'\nprotected = true", "give it range"),
        ("[[feature]]\nname = 'a'\nkind = 'fixed'\nprotected = true", "leave one of them out"),
        ("[[feature]]\nname = 'a'\nprotected = 1", "true or false"),
        ("[[feature]]\nname = 'a'\n[[feature]]\nname = 'a'", "a feature twice"),
        ("[[feature]\n", "is no TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "f.toml").write_text(text)
    with pytest.raises(DataError) as caught:
        read_features(tmp_path / "f.toml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_steps_are_counted_from_the_range(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(
        "[[feature]]\nname = 'a'\nkind = 'integer'\nrange = [1, 9]\nstep = 2.5\nradius = 2.5\n"
    )
    found = read_features(tmp_path / "f.toml")
    assert found.cell(np.array([3.5]), 1.0, protected=False).choices[0].values.ravel().tolist() == [1, 3.5, 6]
    assert found.cell(np.array([8.5]), 1.0, protected=False).choices[0].values.ravel().tolist() == [6, 8.5]
    with pytest.raises(DataError):
        found.cell(np.array([3.0]), 1.0, protected=False)


@pytest.mark.parametrize("start", ["0", "-0.3", "-300.7", "1000.1"])
@pytest.mark.parametrize("step", ["0.1", "0.25", "0.01"])
def test_whole_steps_are_decimals_and_all_within_the_radius_are_there(tmp_path: Path, start: str, step: str) -> None:
    """float32(0.6) is farther than 0.1 from float32(0.5), and float32(-300.7) + 300.7 is not 0."""

    def number(k: int) -> float:
        return float(np.float32(Fraction(start) + k * Fraction(step)))

    text = f"[[feature]]\nname = 'a'\nkind = 'integer'\nrange = [{start}, 2000]\nstep = {step}\nradius = {step}\n"
    (tmp_path / "f.toml").write_text(text)
    found = read_features(tmp_path / "f.toml")
    for place in (0, 3, 5, 17, 2001, 3007):
        for far in (1, 2, 5):
            cell = found.cell(np.array([number(place)]), float(far), protected=False)
            wanted = sorted(number(k) for k in range(max(0, place - far), place + far + 1))
            assert cell.choices[0].values.ravel().tolist() == wanted


def drawn(rng: np.random.Generator) -> tuple[Cell, FloatArray]:
    """A whole number and an interval, or a category of two: p = 2."""
    if rng.random() < 0.3:
        sample = np.eye(2)[rng.integers(2)]
        return Cell(Box.between(sample, sample), (Choice((0, 1), np.eye(2)),)), sample
    values = np.arange(-2.0, 3.0)[:, None] * 0.5
    sample = np.concatenate([rng.choice(values[:, 0], 1), np.float32(rng.normal(size=1))])
    box = Box.around(sample, 0.25, sigma=np.array([0.0, float(rng.integers(2))]))
    some = np.sort(np.unique(np.concatenate([rng.choice(5, 3), np.flatnonzero(values[:, 0] == sample[0])])))
    return Cell(box, (Choice((0,), values[some]),)), sample


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), methods=st.sampled_from([None, ("interval", "linear"), ("random",)]))
def test_verdicts_are_those_of_all_valid_rows(seed: int, methods: tuple[str, ...] | None) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3, 3), q=3)
    cell, sample = drawn(rng)
    label = int(model(sample[None])[0].argmax())
    chosen = Options(methods, max_nodes=400)
    network = lambda points: model(points.astype(np.float64))  # noqa: E731
    found = Rows(model, network, sample, label, cell, chosen, chosen.budget).decide()
    least, rows = [], [np.eye(3)[label] - np.eye(3)[j] for j in range(3) if j != label]
    (choice,) = cell.choices
    for value in choice.values:
        lo, hi = cell.hull.lo.copy(), cell.hull.hi.copy()
        lo[list(choice.columns)] = hi[list(choice.columns)] = value
        least += [ExactModel(model).minimum(row, Box.between(lo, hi)) for row in rows]
    if found.verdict is Verdict.CERTIFIED:
        assert min(least) > 0
        assert found.lower is not None
        assert found.lower <= min(least)
    elif found.verdict is Verdict.FALSIFIED:
        assert found.found is not None
        assert cell.contains(found.found.point[None])[0]
        assert int(model(found.found.point[None].astype(np.float64))[0].argmax()) != label
        assert min(least) <= 0
    elif methods is None:
        assert abs(min(least)) < 1e-6  # small enough for a tree each


def test_a_hull_that_errs_between_valid_rows_falsifies_nothing() -> None:
    """y = (1, 4 a (1 - a) 1.5) by two ReLUs: class 1 for a between 0 and 1, class 0 at both."""
    model = layered([([[1.0], [1.0]], [0.0, -0.5])], ([[0, 0], [4, -8]], [1.0, 0.0]))
    network = lambda points: model(points.astype(np.float64))  # noqa: E731
    cell = Cell(Box.between(np.zeros(1), np.zeros(1)), (Choice((0,), np.array([[0.0], [1.0]])),))
    found = Rows(model, network, np.zeros(1), 0, cell, Options(), Options().budget).decide()
    assert found.verdict is Verdict.CERTIFIED
    wider = Cell(cell.box, (Choice((0,), np.array([[0.0], [0.5], [1.0]])),))
    found = Rows(model, network, np.zeros(1), 0, wider, Options(), Options().budget).decide()
    assert found.verdict is Verdict.FALSIFIED
    assert found.found is not None
    assert found.found.point.tolist() == [0.5]


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_halves_are_the_cell_and_rows_that_are_made_are_valid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell, sample = drawn(rng)
    points = rng.normal(size=(50, 2)) * 2
    rows = cell.nearest(points)
    assert cell.contains(rows).all()
    assert cell.contains(sample[None].astype(np.float32)).all()
    if len(cell.choices[0].values) > 1:
        one, other = cell.halves(0)
        assert (one.contains(rows) ^ other.contains(rows)).all()
        assert one.n_choices + other.n_choices == cell.n_choices
