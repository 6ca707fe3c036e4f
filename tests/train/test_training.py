"""Losses, schedules and choice: gradients are slopes, worst margins hold every margin, and runs repeat themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idl_audit import load, sensitivity_matrix
from idl_audit.graph.original import chosen_output
from idl_audit.graph.reader import read_graph
from idl_audit.training.adam import Adam, Layout
from idl_audit.training.choose import Score
from idl_audit.training.fine_tune import Recipe, Samples, fine_tune
from idl_audit.training.harden import FURTHER_RUNS, JUDGED, NARROWER, Candidate, Task, _other, harden
from idl_audit.training.losses import METHODS, PENALTIES, Batch, attacked, ibp, plain
from idl_audit.training.memory import Done, Memory
from idl_audit.training.network import Twin
from idl_audit.training.schedule import Heard, Schedule, seconds_a_step
from idl_audit.values.errors import ModelFileError, OptionError, UnsupportedModelError
from idl_audit.values.npz import read_npz
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


@pytest.mark.parametrize("method", METHODS)
def test_every_method_lowers_its_loss_and_repeats_itself(method: str) -> None:
    ends = []
    for _ in range(2):
        twin = digits()
        losses: list[float] = []
        recipe = Recipe(method, batch=40, attack_steps=1, seed=5)  # type: ignore[arg-type]
        found = fine_tune(
            twin, images(twin, 80), recipe, Schedule(12, ramp=0.1), heard=lambda step, to=losses: to.append(step.loss)
        )
        ends.append(found.weights)
        assert len(losses) == 12
        assert np.isfinite(losses).all()
        assert min(losses[6:]) < losses[1] or method == "plain"
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_training_by_intervals_certifies_more() -> None:
    twin = digits()
    samples = images(twin, 200, eps=0.02)
    before = certified_by_intervals(twin, samples)
    twin.take(fine_tune(twin, samples, Recipe("ibp"), Schedule(60, ramp=0.3)).weights)
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


def asked_of(
    scores: list[tuple[int, int]], least: int, *, method: str = "mtl", mixed: tuple[int, int] = (0, 0), **more: object
) -> Task:
    """Return a task whose judge says (clean, certified): of the weights before, of each run in turn, of mixtures.

    Runs are told by their weights, which the judge sees for the first time after training.
    """
    twin = digits()
    known: list[tuple[bytes, tuple[int, int]]] = []

    def told(weights: Mapping[str, np.ndarray]) -> tuple[int, int]:
        mark = weights["0.weight"].tobytes()
        for own, score in known:
            if own == mark:
                return score
        score = scores[len(known)] if len(known) < len(scores) else mixed
        known.append((mark, score))
        return score

    def judge(weights: Mapping[str, np.ndarray], branch: bool) -> Score:
        clean, certified = told(weights)
        assert not branch or clean >= least
        return Score(100, clean, 100, 0, certified, 0, 0, 0)

    recipe = Recipe(method, batch=20, attack_steps=1)  # type: ignore[arg-type]
    samples, before = images(twin, 40), judge(twin.arrays(), True)
    return Task(twin, samples, lambda w: told(w)[0], judge, before, 5000, recipe, 0.01, least, **more)  # type: ignore[arg-type]


def chosen_by(task: Task) -> tuple[str | None, list[str]]:
    found = harden(task)
    written = task.network.arrays()
    kept = found.before.weights if found.chosen is None else found.chosen.weights
    assert all(np.array_equal(written[name], kept[name]) for name in kept)
    return (None if found.chosen is None else found.chosen.name), [one.name for one in found.front]


def test_runs_take_more_while_accuracy_is_kept_and_then_what_lies_between() -> None:
    name, front = chosen_by(asked_of([(98, 10), (97, 60), (90, 80), (97, 70), (97, 65)], least=96))
    assert front == ["mtl, a = 0.05", "mtl, a = 0.2", "mtl, a = 0.1", "mtl, a = 0.141"]  # mixtures lose too much
    assert name == "mtl, a = 0.1"
    name, front = chosen_by(asked_of([(98, 10), (97, 60), *[(90, 80)] * 3], least=96, mixed=(96, 65)))
    assert front[1:4] == ["mtl, a = 0.2", "mtl, a = 0.1", "mtl, a = 0.0707"]
    assert name == front[4] == "94% of the way from mtl, a = 0.05 to mtl, a = 0.2"
    assert len(front) == 7


def test_runs_take_less_from_the_weights_before_until_accuracy_is_kept() -> None:
    task = asked_of([(98, 10), *[(90, 80)] * 3, (97, 50)], least=96, mixed=(96, 55))
    name, front = chosen_by(task)
    assert front == ["mtl, a = 0.05", "mtl, a = 0.0125", "mtl, a = 0.00313", "mtl, a = 0.000781"]
    assert name == front[-1]


def test_those_that_lines_certify_most_are_branched_on() -> None:
    task, asked = asked_of([(98, 10), (97, 60), (97, 70), (97, 80), (97, 50)], least=96), []

    def judge(weights: Mapping[str, np.ndarray], branch: bool) -> Score:
        asked.append(branch)
        found = task.judge(weights, branch)
        return replace(found, branched=2, by_branching=1, open=10) if branch else found

    found = harden(replace(task, judge=judge))
    assert asked == [False] * 4 + [True] * JUDGED
    assert [one.score.certified for one in found.front] == [65, 75, 85, 50]
    assert found.chosen is found.front[2]


def test_the_radius_of_training_shrinks_with_the_coefficient() -> None:
    recipe = Recipe("mtl", a=0.4, wider=1.0)
    less, more, between = _other(None, recipe), _other(recipe, None), _other(recipe, replace(recipe, a=0.9))
    assert less is not None
    assert (less.a, less.wider) == pytest.approx((0.1, NARROWER))
    assert more is not None
    assert (more.a, more.wider) == (1.0, 1.0)
    assert between is not None
    assert (between.a, between.wider) == pytest.approx((0.6, 1.0))
    assert _other(more, None) is None


def test_penalties_have_weights_and_methods_without_a_number_have_one_run() -> None:
    assert chosen_by(asked_of([(98, 10), (97, 60)], least=98, method="S"))[1][0] == "S, weight = 0.03"
    assert chosen_by(asked_of([(98, 10), (97, 60)], least=96, method="ibp")) == ("ibp", ["ibp"])
    assert chosen_by(asked_of([(98, 10), (97, 60)], least=96, method="mtl+S"))[1][0] == "mtl+S, a = 0.05"


def test_nothing_is_chosen_where_nothing_keeps_clean_accuracy_or_nothing_is_gained() -> None:
    name, front = chosen_by(asked_of([(98, 10), (50, 60)], least=96))
    assert name is None
    assert len(front) == 1 + FURTHER_RUNS
    assert chosen_by(asked_of([(98, 60)], least=96, mixed=(98, 60)))[0] is None


def test_a_way_back_to_the_weights_before_is_gone_where_nothing_else_keeps_accuracy() -> None:
    name, front = chosen_by(asked_of([(98, 10), *[(50, 60)] * (1 + FURTHER_RUNS)], least=96, mixed=(97, 20)))
    assert name == front[-1] == "94% of the way from before to mtl, a = 0.05"


# --- going on ---------------------------------------------------------------------------------------------------------


def remembered(path: Path, *, resume: bool, key: str = "k") -> Memory:
    return Memory.open(path, key, {name: value.shape for name, value in digits().arrays().items()}, resume=resume)


def stopped_after(steps: int) -> Callable[[str], Heard]:
    """Return what ends training by an interrupt after so many steps of all runs together."""
    told: list[int] = []

    def heard(step: object) -> None:
        told.append(1)
        if len(told) == steps:
            raise KeyboardInterrupt

    return lambda name: heard


@pytest.mark.parametrize("steps", [1, 30, 120])
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idl_audit.training.fine_tune.KEPT_EVERY", 20)

    def task(**more: object) -> Task:
        return asked_of([(98, 10)], least=96, mixed=(97, 60), **more)  # type: ignore[arg-type]

    whole = harden(task())
    cut = harden(task(memory=remembered(tmp_path / "run", resume=False)), stopped_after(steps))
    assert cut.interrupted
    assert len(cut.front) == 1 + steps // 50 - (steps % 50 == 0)
    gone_on = harden(task(memory=remembered(tmp_path / "run", resume=True)))
    assert not gone_on.interrupted
    for one, other in zip(whole.front, gone_on.front, strict=True):
        assert (one.name, one.score, one.steps) == (other.name, other.score, other.steps)
        assert all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_a_memory_of_another_task_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    memory = remembered(path, resume=True)
    memory.done(Done("mtl, a = 0.1", digits().arrays(), 5, Score(10, 9, 10, 1, 2, 2, 1, 4)))
    assert remembered(path, resume=True).runs[0].score == memory.runs[0].score
    with pytest.raises(OptionError, match="go on with --resume"):
        remembered(path, resume=False)
    with pytest.raises(OptionError, match="another model, other samples or other options"):
        remembered(path, resume=True, key="other")
    arrays = read_npz(path)
    for name, wrong in (("run0/0", arrays["run0/0"][:1]), ("run0/1", np.full_like(arrays["run0/1"], np.nan))):
        np.savez(tmp_path / "wrong.npz", **{**arrays, name: wrong})
        with pytest.raises(ModelFileError, match="no memory of a run"):
            remembered(tmp_path / "wrong.npz", resume=True)
    memory.forget()
    assert not path.exists()


# --- how far outputs move ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv", "digits_resnet"])
def test_the_penalty_is_the_norm_of_the_sensitivity_matrix(name: str) -> None:
    twin = digits(name)
    S = sensitivity_matrix(load(SAMPLES / f"{name}.onnx"), "paper")
    found = twin.spread(torch.ones(())).detach().numpy()
    if name == "digits_conv":  # the paper's S has its max-pool as sums of absolute values, which is looser
        assert (found <= S.sum(axis=1) * 1.0001).all()
    else:
        np.testing.assert_allclose(found, S.sum(axis=1), rtol=1e-4)
    assert float(PENALTIES["rho"](twin, torch.ones(())).detach()) >= found.max()


def test_rho_is_the_product_of_the_norms_of_the_layers() -> None:
    """With (I, s_1 I, ...) for scales, (4.7) is least where the layers' norms are alike; see the mathematics."""
    twin = digits()
    norms = [float(np.abs(twin.arrays()[f"{k}.weight"]).sum(axis=1).max()) for k in (0, 2, 4)]
    assert float(PENALTIES["rho"](twin, torch.ones(())).detach()) == pytest.approx(np.prod(norms), rel=1e-5)


@pytest.mark.parametrize("alike", [False, True])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_score_moves_further_than_its_spread(alike: bool, seed: int) -> None:
    twin, rng = small(seed, "Sigmoid"), torch.Generator().manual_seed(seed)
    x, y = torch.randn((50, 3), generator=rng), torch.randn((50, 3), generator=rng)
    with torch.no_grad():
        most = twin.spread(torch.ones(()), alike=alike) * (x - y).abs().amax(1)[:, None]
        assert ((twin(x) - twin(y)).abs() <= most * 1.0001 + 1e-6).all()


def test_the_penalty_on_columns_is_the_length_of_each() -> None:
    twin = digits()
    columns = np.linalg.norm(twin.arrays()["0.weight"], axis=0)
    np.testing.assert_allclose(twin.columns().detach().numpy(), columns, rtol=1e-5, atol=1e-18)
    radius = torch.linspace(0, 1, 64).reshape(64)
    found = float(PENALTIES["columns"](twin, radius).detach())
    assert found == pytest.approx(float(columns @ radius.numpy()), rel=1e-5)
    with pytest.raises(UnsupportedModelError, match=r"Conv node .* columns are those of a dense layer"):
        digits("digits_conv").columns()
    of_rows = Network(proto([node("MatMul", "x v")], (1, 2, 3), {"v": np.ones((3, 2), np.float32)}))
    with pytest.raises(UnsupportedModelError, match=r"MatMul node .* columns are those of a dense layer"):
        Twin.of(of_rows.graph, "y", (1, 2, 3)).columns()


def test_what_multiplies_two_moving_tensors_has_no_spread() -> None:
    nodes = [node("MatMul", "x v", "h"), node("Mul", "h h")]
    twin = Twin.of(Network(proto(nodes, (1, 3), {"v": np.ones((3, 2), np.float32)})).graph, "y", (1, 3))
    with pytest.raises(UnsupportedModelError, match="nothing bounds how far"):
        twin.spread(torch.ones(()))


def test_a_run_ends_with_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idl_audit.training.schedule.GRACE", 0.0)
    twin, steps = digits(), []
    fine_tune(
        twin, images(twin, 20), Recipe("ibp", batch=10), Schedule(1000), seconds=0.0, heard=lambda s: steps.append(s)
    )
    assert len(steps) == 1


def test_candidates_are_values() -> None:
    score = Score(20, 18, 10, 1, 2, 2, 1, 4)
    assert score.certified == 4.0
    assert replace(score, branched=0, by_branching=0).certified == 2.0
    assert Candidate("before", {}, score).steps == 0


def test_adam_on_one_vector_is_torch_s_on_each_weight() -> None:
    """With steps in units of each weight, gradients cut to a length, and kernels whose channels come last."""
    chance = torch.Generator().manual_seed(0)
    shapes, scales = ((3, 2), (3,), (2, 3, 2, 2), (4,)), [0.5, 1.0, 2.0, 1.0]
    given = [torch.randn(shape, generator=chance) for shape in shapes]
    goals = [torch.randn(shape, generator=chance) for shape in shapes]
    ours, theirs = ([one.clone().requires_grad_() for one in given] for _ in range(2))
    adam = Adam(ours, scales, 1.0)
    assert all(torch.equal(one, other) for one, other in zip(ours, given, strict=True))
    peer = torch.optim.Adam([{"params": [one], "lr": 0.1 * s} for one, s in zip(theirs, scales, strict=True)])
    for number in range(5):

        def loss(weights: list[Tensor]) -> Tensor:  # the last weight is not read
            pairs = zip(weights[:3], goals, strict=False)
            return torch.stack([(one - goal).square().sum() for one, goal in pairs]).sum()

        adam.descend(loss(ours), 0.1, number)
        peer.zero_grad()
        loss(theirs).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        peer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(ours[3], given[3])
    stays = adam.vector.clone()
    adam.descend(ours[0].sum() * math.inf, 0.1, 5)
    assert torch.equal(adam.vector, stays)


def test_what_lies_in_one_vector_comes_back() -> None:
    tensors = [torch.arange(24.0).reshape(2, 3, 2, 2), torch.arange(3.0), torch.arange(6.0).reshape(2, 3)]
    layout = Layout(tensors)
    vector = layout.joined(tensors)
    assert all(torch.equal(one, other) for one, other in zip(layout.views(vector), tensors, strict=True))
    kernel = layout.views(vector)[0]
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    kernel[0, 1, 0, 0] = -7
    assert (vector == -7).sum() == 1
