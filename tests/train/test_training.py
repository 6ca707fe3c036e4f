"""Losses, schedules and choice: gradients are slopes, worst margins hold every margin, and runs repeat themselves."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idl_audit.graph.original import chosen_output
from idl_audit.graph.reader import read_graph
from idl_audit.train.choose import Score
from idl_audit.train.fine_tune import Recipe, Samples, fine_tune
from idl_audit.train.harden import Candidate, Task, harden
from idl_audit.train.losses import LOSSES, Batch, attacked, ibp, plain
from idl_audit.train.network import Twin
from idl_audit.train.schedule import Schedule, seconds_a_step
from idl_audit.values.errors import OptionError, UnsupportedModelError
from tests.shared.implicit_models import Network, floats, node, proto

SAMPLES = Path(__file__).parents[2] / "sample_models"


def digits(name: str = "digits_mlp", **more: object) -> Twin:
    path = SAMPLES / f"{name}.onnx"
    graph = read_graph(path)
    shape = (1, 64) if name == "digits_mlp" else (1, 1, 8, 8)
    return Twin.of(graph, chosen_output(path, graph, None), shape, **more)  # type: ignore[arg-type]


def images(twin: Twin, n: int, eps: float = 0.05) -> Samples:
    with np.load(SAMPLES / "digits_mlp.npz") as held:
        x, y = held["inputs"][:n].astype(np.float32), held["labels"][:n].astype(np.int64)
    radius = torch.full((1,), eps)
    valid = (torch.zeros(()), torch.ones(()))
    return Samples(torch.from_numpy(x.reshape(-1, *twin.shape)), torch.from_numpy(y), radius, valid)


def right_of(network: Twin, samples: Samples) -> float:
    """Return the share of samples whose class is the label."""
    with torch.no_grad():
        return float((network(samples.x).argmax(1) == samples.y).double().mean())


def certified_by_intervals(network: Twin, samples: Samples) -> int:
    """Return of how many samples intervals say that no other class wins in the box."""
    batch = samples.batch(torch.arange(len(samples.x)), 1.0)
    with torch.no_grad():
        worst = network.worst(batch.box, batch.y)
    worst[torch.arange(len(batch.y)), batch.y] = -torch.inf
    return int((worst.amax(1) < 0).sum())


def small(seed: int, last: str) -> Twin:
    """Return a network of two layers of random weights, its last layer written in one of several ways."""
    rng = np.random.default_rng(seed)
    weights = {"v": floats(rng, 3, 5), "a": floats(rng, 5), "w": floats(rng, 4, 5), "b": floats(rng, 4)}
    nodes = [node("MatMul", "x v", "h"), node("Add", "h a", "k"), node("Relu", "k", "z")]
    if last == "Gemm":
        nodes.append(node("Gemm", "z w b", transB=1))
    elif last == "MatMul":
        weights["w"] = weights["w"].T.copy()
        nodes += [node("MatMul", "z w", "m"), node("Add", "m b")]
    elif last == "Softmax":
        nodes += [node("Gemm", "z w b", "m", transB=1), node("Softmax", "m", axis=1)]
    else:
        nodes += [node("Gemm", "z w b", "m", transB=1), node("Sigmoid", "m")]
    graph = Network(proto(nodes, (1, 3), weights)).graph
    return Twin.of(graph, "y", (1, 3))


@pytest.mark.parametrize("last", ["Gemm", "MatMul", "Softmax", "Sigmoid"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_worst_margins_hold_every_margin_in_the_box(last: str, seed: int) -> None:
    twin, rng = small(seed, last), torch.Generator().manual_seed(seed)
    x = torch.randn((6, 3), generator=rng)
    y = torch.randint(0, 4, (6,), generator=rng)
    batch = Batch(x, y, x - 0.2, x + 0.3)
    rows = torch.arange(6)
    with torch.no_grad():
        worst = twin.worst(batch.box, y)
        assert (worst[rows, y] == 0).all()
        for _ in range(30):
            points = batch.lo + torch.rand(x.shape, generator=rng).round() * (batch.hi - batch.lo)
            scores = twin(points)
            assert (scores - scores[rows, y][:, None] <= worst + 1e-5).all()
        span = twin.span(batch.box)
        apart = span.hi - span.lo[rows, y][:, None]
        assert (worst <= apart + 1e-5).all() or last in ("Softmax", "Sigmoid")


@pytest.mark.parametrize("loss", [plain, ibp])
def test_gradients_are_slopes(loss: object) -> None:
    twin = small(3, "Gemm")
    for name, constant in twin.constants.items():
        twin.constants[name] = constant.detach().double()
    twin.weights = {name: twin.constants[name].requires_grad_() for name in twin.weights}
    x = torch.randn((5, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Batch(x, torch.tensor([0, 1, 2, 3, 0]), x - 0.1, x + 0.1)

    def value() -> Tensor:
        found: Tensor = loss(twin, batch)  # type: ignore[operator]
        return found

    value().backward()  # type: ignore[no-untyped-call]
    for weight in twin.weights.values():
        assert weight.grad is not None
        flat, slopes = weight.data.reshape(-1), weight.grad.reshape(-1)
        for k in range(0, flat.numel(), 3):
            kept, values = float(flat[k]), []
            for step in (1e-6, -1e-6):
                flat[k] = kept + step
                values.append(float(value().detach()))
            flat[k] = kept
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(slopes[k]), abs=1e-6)


def test_attacked_points_lie_in_their_boxes_and_raise_the_loss() -> None:
    twin = digits()
    batch = images(twin, 60).batch(torch.arange(60), 1.0)
    found = attacked(twin, batch, 4, torch.Generator().manual_seed(0))
    assert ((found >= batch.lo) & (found <= batch.hi)).all()
    there = Batch(found, batch.y, batch.lo, batch.hi)
    assert float(plain(twin, there).detach()) > float(plain(twin, batch).detach())
    assert (batch.lo >= 0).all()
    assert (batch.hi <= 1).all()


@pytest.mark.parametrize("method", LOSSES)
def test_every_method_lowers_its_loss_and_repeats_itself(method: str) -> None:
    ends = []
    for _ in range(2):
        twin = digits()
        losses: list[float] = []
        recipe = Recipe(method, batch=40, attack_steps=1, seed=5)  # type: ignore[arg-type]
        weights = fine_tune(
            twin, images(twin, 80), recipe, Schedule(12, ramp=0.1), heard=lambda step, to=losses: to.append(step.loss)
        )
        ends.append(weights)
        assert len(losses) == 12
        assert np.isfinite(losses).all()
        assert min(losses[6:]) < losses[1] or method == "plain"
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_training_by_intervals_certifies_more() -> None:
    twin = digits()
    samples = images(twin, 200, eps=0.02)
    before = certified_by_intervals(twin, samples)
    twin.take(fine_tune(twin, samples, Recipe("ibp", rate=5e-3), Schedule(60, ramp=0.3)))
    assert certified_by_intervals(twin, samples) > before + 20
    assert right_of(twin, samples) > 0.8


def test_frozen_weights_and_statistics_stay() -> None:
    twin = digits("digits_resnet", freeze=("*bias*",))
    assert twin.weights
    assert not any("bias" in name for name in twin.weights)
    kept = {name: value.detach().clone() for name, value in twin.constants.items() if name not in twin.weights}
    fine_tune(twin, images(twin, 20), Recipe("ibp", batch=10), Schedule(2))
    assert all(torch.equal(twin.constants[name], value) for name, value in kept.items())


def test_what_cannot_be_trained_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match="--freeze nothing: no weight"):
        digits(freeze=("nothing",))
    with pytest.raises(OptionError, match="nothing is left to train"):
        digits(freeze=("*",))
    nodes = [node("MatMul", "x v", "h"), node("Floor", "h", "k"), node("Sin", "k")]
    graph = Network(proto(nodes, (1, 3), {"v": np.ones((3, 2), np.float32)})).graph
    with pytest.raises(UnsupportedModelError) as refused:
        Twin.of(graph, "y", (1, 3))
    assert len(refused.value.problems) == 2


def test_schedules_grow_and_fall() -> None:
    schedule = Schedule(200)
    radii = [schedule.radius(step) for step in range(200)]
    rates = [schedule.rate(step) for step in range(200)]
    assert radii == sorted(radii)
    assert radii[-1] == 1.0
    assert max(rates) <= 1.0
    assert rates[-1] < 1e-3
    assert all(a >= b for a, b in pairwise(rates[5:]))
    twin = digits()
    assert (
        seconds_a_step(twin, 5000, 100, 0) < seconds_a_step(twin, 5000, 100, 3) < seconds_a_step(twin, 50_000, 100, 3)
    )


def chosen_by(scores: dict[float, tuple[int, float]], least: int) -> tuple[str | None, list[str]]:
    """Harden with a judge that says (clean, certified) of a candidate by how far its weights have moved."""
    twin = digits()
    start = twin.arrays()
    asked: list[float] = []

    def judge(weights: object) -> Score:
        moved = sum(float(np.abs(weights[n] - start[n]).sum()) for n in start)  # type: ignore[index]
        asked.append(moved)
        clean, certified = scores[0.0] if moved == 0 else scores[min(len(asked) - 1, max(scores))]
        return Score(100, clean, 0, int(certified), 0, 0, 0)

    recipe = Recipe("mtl", batch=20, attack_steps=1)
    task = Task(twin, images(twin, 40), judge, judge(start), 5000, recipe, 0.01, least)
    found = harden(task)
    written = twin.arrays()
    kept = start if found.chosen is None else found.chosen.weights
    assert all(np.array_equal(written[name], kept[name]) for name in kept)
    return (None if found.chosen is None else found.chosen.name), [one.name for one in found.front]


def test_the_best_that_keeps_clean_accuracy_is_chosen() -> None:
    name, front = chosen_by({0.0: (98, 10), 1: (97, 60), 2: (90, 80), 3: (97, 70), 4: (97, 65)}, least=96)
    assert name == front[2]
    assert front == ["mtl, a = 0.1", "mtl, a = 0.3", "mtl, a = 0.1", "mtl, a = 0.0333"] or len(front) == 4


def test_nothing_is_chosen_where_nothing_keeps_clean_accuracy_or_nothing_is_gained() -> None:
    name, front = chosen_by({0.0: (98, 10), 1: (50, 60)}, least=96)
    assert name is None
    assert any("of the way" in one for one in front)
    assert chosen_by({0.0: (98, 60), 1: (98, 60)}, least=96)[0] is None


def test_a_run_ends_with_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idl_audit.train.schedule.GRACE", 0.0)
    twin, steps = digits(), []
    fine_tune(
        twin, images(twin, 20), Recipe("ibp", batch=10), Schedule(1000), seconds=0.0, heard=lambda s: steps.append(s)
    )
    assert len(steps) == 1


def test_candidates_are_values() -> None:
    score = Score(10, 9, 1, 2, 2, 1, 4)
    assert score.certified == 4.0
    assert replace(score, branched=0, by_branching=0).certified == 2.0
    assert Candidate("before", {}, score).steps == 0
