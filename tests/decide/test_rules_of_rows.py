"""Linear rules between features: only rows that satisfy them count, exactly, and bounds know them."""

from __future__ import annotations

from fractions import Fraction
from itertools import count, product
from pathlib import Path

import numpy as np
import pytest

from idl_audit.data.features import Features, read_features
from idl_audit.decide.ladder import Options
from idl_audit.decide.mixed import Rows
from idl_audit.implicit.front import with_input_rows
from idl_audit.values.budget import Budget
from idl_audit.values.errors import DataError
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.command_line import gemm, network, run
from tests.shared.pairs import chain, layered

NUMBERS = "".join(f'[[feature]]\nname = "{name}"\nrange = [0, 8]\n' for name in ("a", "b", "total"))


def features(path: Path, *rules: str, text: str = NUMBERS) -> Features:
    path.write_text(text + "".join(f"\n[[rule]]\n{rule}\n" for rule in rules))
    return read_features(path)


def decided(model, row, label, found: Features, eps: float, nodes: int = 400):
    cell = found.cell(row, eps, protected=False)
    network_ = lambda u: model(u.astype(np.float64))  # noqa: E731
    options = Options(max_nodes=nodes)
    return Rows(model, network_, row, label, cell, options, Budget.of(60.0, nodes=nodes)).decide(), cell


def test_rules_are_read_as_they_are_written(tmp_path: Path) -> None:
    found = features(tmp_path / "f.toml", 'holds = "total = a + b"', 'holds = "2 * a - 0.1 * b <= 3 + total"').rules
    one, other, last = found
    assert dict(zip(one.columns, one.coefficients, strict=True)) == {2: 1, 0: -1, 1: -1}
    assert dict(zip(other.columns, other.coefficients, strict=True)) == {2: -1, 0: 1, 1: 1}
    assert dict(zip(last.columns, last.coefficients, strict=True)) == {0: 2, 1: Fraction(-1, 10), 2: -1}
    assert (one.limit, last.limit) == (0, 3)
    row = np.array([1.0, 2.0, 3.0])
    assert one.value(row) == other.value(row) == 0
    (loose,) = features(tmp_path / "f.toml", 'holds = "a >= b"\ntolerance = 0.25').rules
    assert loose.value(np.array([1.0, 1.5, 0])) == Fraction(1, 4)


REFUSED = {
    'holds = "total = a + c"': "'c'",
    'holds = "total"': "two sides",
    'holds = "a = b = total"': "two sides",
    'holds = "a b <= 1"': r"write \+ or -",
    'holds = "1 <= 2"': "about no feature",
    'holds = "a <= "': "no feature and no number",
    'holds = "a <= b"\ntolerance = -1': "tolerance",
    "holds = 3": "two sides",
    'says = "a <= b"': "needs holds",
    'holds = "1e400 * a <= b"': "beyond 1e100",
    'holds = "a <= b + 1e101"': "beyond 1e100",
}


@pytest.mark.parametrize("rule", REFUSED)
def test_what_is_no_rule_is_refused(tmp_path: Path, rule: str) -> None:
    with pytest.raises(DataError, match=REFUSED[rule]):
        features(tmp_path / "f.toml", rule)


@pytest.mark.parametrize("rule", ["a <= 2", "2 * 2 <= a", "2 <= a", "a <= b - 2"])
def test_a_number_that_is_a_features_name_is_neither(tmp_path: Path, rule: str) -> None:
    more = NUMBERS + '[[feature]]\nname = "2"\nrange = [0, 8]\n'
    with pytest.raises(DataError, match="2 is a number, and a feature's name"):
        features(tmp_path / "f.toml", f'holds = "{rule}"', text=more)
    assert features(tmp_path / "f.toml", 'holds = "a <= 2.0 * b"', text=more).rules[0].coefficients[1] == -2


def test_rows_are_moved_by_coefficients_of_any_size(tmp_path: Path) -> None:
    """A step beyond all floats is one to the end of the range."""
    found = features(tmp_path / "f.toml", 'holds = "1e-60 * a <= 1e-400 * total + b - 3"')
    cell = found.cell(np.array([0.0, 6.0, 0.0]), 6.0, protected=False)
    (moved,) = cell.mended(np.array([[5.0, 0.0, 5.0]], np.float32))
    assert moved.tolist() == [0.0, pytest.approx(3.0), 6.0]
    assert cell.contains(moved[None])[0]


def test_a_category_has_no_rule_and_a_sample_satisfies_all(tmp_path: Path) -> None:
    more = NUMBERS + '[[feature]]\nname = "sex"\ncategories = ["f", "m"]\n'
    with pytest.raises(DataError, match="category"):
        features(tmp_path / "f.toml", 'holds = "sex <= a"', text=more)
    found = features(tmp_path / "f.toml", 'holds = "total = a + b"')
    with pytest.raises(DataError, match="'total = a \\+ b' does not hold, by 1"):
        found.cell(np.array([1.0, 2.0, 4.0]), 1.0, protected=False)


def scored(weights: list[float], offset: float):
    """Class 0 where weights . u + offset > 0, behind states that do not bend."""
    first, last = np.array([weights]), np.array([[1.0], [0.0]])
    return chain([first, last], [np.array([offset + 90.0]), np.array([-90.0, 0.0])], ("relu",))


def test_rows_that_break_a_rule_neither_falsify_nor_keep_from_a_proof(tmp_path: Path) -> None:
    """total - a - b + 0.5 > 0 on all valid rows, and not on the box."""
    row, model = np.array([1.0, 2.0, 3.0]), scored([-1, -1, 1], 0.5)
    ruled = features(tmp_path / "f.toml", 'holds = "total = a + b"')
    result, _ = decided(model, row, 0, ruled, 1.0)
    assert result.verdict is Verdict.CERTIFIED
    assert 0 < result.lower <= 0.5, "what a sum with rules is above, the margin is on valid rows"
    free = features(tmp_path / "f.toml")
    assert decided(model, row, 0, free, 1.0)[0].verdict is Verdict.FALSIFIED
    tight = scored([-1, -1, 1], -0.25)
    looser = features(tmp_path / "f.toml", 'holds = "total = a + b"\ntolerance = 0.5')
    assert decided(tight, np.array([1.0, 2.0, 3.5]), 0, looser, 1.0)[0].verdict is Verdict.FALSIFIED


@pytest.mark.parametrize("seconds", [0, 1, 2, 3, 5, 9, 20])
def test_time_that_is_over_anywhere_leaves_a_sample_open(tmp_path: Path, seconds: int) -> None:
    """A clock that moves on by one second each time it is looked at."""
    ticks = count()
    found = features(tmp_path / "f.toml", 'holds = "total = a + b"')
    row, model = np.array([1.0, 2.0, 3.0]), scored([-1, 1, 0.01], 0.5)
    budget = Budget.of(seconds, clock=lambda: float(next(ticks)))
    network_ = lambda u: model(u.astype(np.float64))  # noqa: E731
    result = Rows(model, network_, row, 0, found.cell(row, 0.5, protected=False), Options(), budget).decide()
    assert result.verdict in (Verdict.CERTIFIED, Verdict.UNKNOWN)
    assert result.verdict is not Verdict.UNKNOWN or result.reason is Reason.TIME_LIMIT


@pytest.mark.parametrize("seed", range(4))
def test_what_is_falsified_satisfies_the_rules_exactly(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = features(tmp_path / "f.toml", 'holds = "total = a + b"', 'holds = "a <= b + 1.5"')
    row = np.array([1.25, 2.0, 3.25])
    weights = rng.normal(size=3)
    model = scored(weights.tolist(), float(-weights @ row) + 0.3)
    result, cell = decided(model, row, 0, found, 1.0)
    ends = [(a, b) for a in (0.25, 2.25) for b in (1.0, 3.0) if 2.25 <= a + b <= 4.25 and a <= b + 1.5]
    worst = min(float(weights @ [a, b, a + b]) for a, b in [(1.25, 2.0), *ends]) - float(weights @ row) + 0.3
    if result.verdict is Verdict.FALSIFIED:
        point = result.found.point
        assert point[2] == float(point[0]) + float(point[1])
        assert all(rule.value(point) <= 0 for rule in found.rules)
        assert bool(cell.contains(point[None])[0])
    elif result.verdict is Verdict.CERTIFIED:
        assert worst > 0
    if worst < -0.05:
        assert result.verdict is Verdict.FALSIFIED


WHOLE = "".join(
    f'[[feature]]\nname = "{n}"\nkind = "integer"\nrange = [0, 5]\nradius = 2\n' for n in ("a", "b", "total")
)


@pytest.mark.parametrize("seed", range(6))
def test_verdicts_are_those_of_all_valid_rows(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = features(tmp_path / "f.toml", 'holds = "total = a + b"', 'holds = "2 * a >= b"', text=WHOLE)
    row = np.array([2.0, 1.0, 3.0])
    model = layered(rng, (3, 6, 2), ("relu",))
    label = int(np.argmax(model(row[None])[0]))
    every = [(a, b, a + b) for a, b in product(range(5), range(4)) if 1 <= a + b <= 5 and 2 * a >= b]
    rows = np.array(every, np.float64)
    wrong = (model(rows).argmax(axis=1) != label).any()
    result, _ = decided(model, row, label, found, 1.0, nodes=2000)
    assert result.verdict is (Verdict.FALSIFIED if wrong else Verdict.CERTIFIED)


def test_rules_are_outputs_of_their_own() -> None:
    rng = np.random.default_rng(0)
    model, rows, limits = layered(rng, (3, 5, 4, 2), ("relu", "tanh")), rng.normal(size=(2, 3)), rng.normal(size=2)
    both = with_input_rows(model, rows, limits)
    u = rng.normal(size=(20, 3))
    np.testing.assert_allclose(both(u), np.hstack([model(u), u @ rows.T - limits]), atol=1e-12)


def test_the_command_line_knows_rules_and_ways(tmp_path: Path) -> None:
    """Class 1 where total - a - b > 0.5, which no valid row has; its score never falls while total rises."""
    weights = np.array([[0, -1, 0], [0, -1, 0], [0, 1, 0], [0, 0, 0]])
    network(tmp_path / "m.onnx", [gemm()], {"w": weights, "b": np.array([0, -0.5, -99.0])})
    text = (
        NUMBERS.replace('name = "total"', 'name = "total"\nmonotone = "+"') + '[[feature]]\nname = "c"\nrange = [0, 1]'
    )
    features(tmp_path / "f.toml", 'holds = "total = a + b"', text=text + "\n")
    np.savez(tmp_path / "d.npz", inputs=np.array([[1, 2, 3, 0.5], [0, 0, 0, 0]], np.float32), labels=np.zeros(2, int))
    given = ("-q", "-f", "json", "--features", tmp_path / "f.toml")
    report = run("certify", tmp_path / "m.onnx", "-d", tmp_path / "d.npz", "-e", 2, *given).report
    assert [one.results[0].verdict for one in report.samples] == [Verdict.CERTIFIED] * 2
    report = run("certify", tmp_path / "m.onnx", "--everywhere", "--class", 1, *given).report
    (one,) = report.everywhere.statements
    assert (one.kind, one.verdict) == ("monotone", Verdict.CERTIFIED)
    assert "never falls while total rises" in one.text
    report = run(
        "certify", tmp_path / "m.onnx", "--everywhere", "--never", 1, "--class", 1, "--max-nodes", 40, *given
    ).report
    assert report.everywhere.statements[0].verdict is not Verdict.FALSIFIED
