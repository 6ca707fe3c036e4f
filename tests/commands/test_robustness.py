"""attack and certify as functions: counts, order, repetition, interruption, and what the user is told beside them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

from idl_audit.commands import certify as robustness
from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.shared import decider
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from idl_audit.graph import torch_copy
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.schema import Reason, Verdict
from idl_audit.values.errors import DataError, OptionError, UnsupportedModelError
from tests.shared.lonely_samples import one_by_one

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL = SAMPLES / "digits_mlp.onnx"
DATA = SAMPLES / "digits_mlp.npz"
MIXED = (14, 0, 37, 10, 3, 25)
"""Samples with every verdict at eps 0.05 within [0, 1]: clean wrong, certified, unknown, falsified, ..."""

ALL = ("certify", "attack")


METHODS = {"certify": ("interval", "sign", "pgd", "linear", "lp"), "attack": ("sign", "pgd", "lp")}
"""Without branching, which leaves nothing undecided."""


def audit(
    command="certify",
    *,
    model=MODEL,
    data=DATA,
    eps="0.05",
    index=MIXED,
    limit=None,
    bounds=(0.0, 1.0),
    watch=lambda progress: None,
    save=None,
    **options,
):
    chosen = RobustnessOptions(
        eps=parse_eps(eps),
        data=DataOptions(data, index=index, limit=limit, preprocessing=Preprocessing(bounds=bounds)),
        verdicts=Options(**({"methods": METHODS[command]} | options)),
        save=save,
    )
    return audit_robustness(command, model, chosen, watch=watch)


def without_times(report):
    """Return the report as it would be had everything taken no time."""
    document = report.model_dump(mode="json", by_alias=True)
    for key in ("created", "timing"):
        del document[key]
    for key in ("seconds", "peak_mb"):
        del document["conversion"][key]
    for result in (result for sample in document["samples"] for result in sample["results"]):
        del result["seconds"]
    return document


def codes(report):
    return [entry.code for entry in report.diagnostics]


def test_every_verdict_occurs_among_the_mixed_samples():
    (counts,) = audit().summary.per_eps
    assert min(counts.certified, counts.falsified, counts.unknown, counts.clean_wrong) >= 1


@pytest.mark.parametrize("command", ALL)
@pytest.mark.parametrize("eps", ["0.05", "0.02,0.05", "0.01:0.09:3", "0.05,0.01"])
def test_counts_sum_to_n_and_are_those_of_the_samples(command, eps):
    report = audit(command, eps=eps)
    assert [entry.eps for entry in report.summary.per_eps] == [entry.value for entry in parse_eps(eps)]
    for place, counts in enumerate(report.summary.per_eps):
        found = [sample.results[place] for sample in report.samples]
        assert {result.eps for result in found} == {counts.eps}
        assert counts.n == len(found) == len(MIXED)
        assert counts.certified + counts.falsified + counts.unknown + counts.clean_wrong == counts.n
        for verdict in Verdict:
            assert getattr(counts, verdict.value) == sum(result.verdict is verdict for result in found)
    right = sum(sample.predicted == sample.label for sample in report.samples)
    assert (report.summary.clean.k, report.summary.clean.n) == (right, len(MIXED))


@pytest.mark.parametrize("command", ALL)
def test_a_larger_radius_certifies_no_more_and_attacks_no_less(command):
    report = audit(command, eps="0.005,0.02,0.05,0.08")
    for smaller, larger in itertools.pairwise(report.summary.per_eps):
        assert smaller.certified >= larger.certified
        assert smaller.falsified <= larger.falsified
        assert smaller.clean_wrong == larger.clean_wrong
    for sample in report.samples:
        verdicts = [result.verdict for result in sample.results]
        first = next((k for k, verdict in enumerate(verdicts) if verdict is Verdict.FALSIFIED), len(verdicts))
        assert set(verdicts[first:]) <= {Verdict.FALSIFIED}
        assert Verdict.CERTIFIED not in verdicts[first:]
        for result in sample.results:
            if result.adversarial is not None:
                assert result.adversarial.linf <= result.eps * (1 + 1e-12)
                assert result.adversarial.margin <= 0


def test_each_radius_alone_gives_what_it_gives_in_a_list():
    together = audit(eps="0.02,0.05,0.08")
    for place, text in enumerate(("0.02", "0.05", "0.08")):
        for ours, theirs in zip(audit(eps=text).samples, together.samples, strict=True):
            assert ours.results[0].verdict is theirs.results[place].verdict


def test_the_order_of_radii_does_not_matter():
    up, down = audit(eps="0.02,0.08"), audit(eps="0.08,0.02")
    for ours, theirs in zip(up.samples, down.samples, strict=True):
        assert [result.verdict for result in ours.results] == [result.verdict for result in theirs.results][::-1]


@pytest.mark.parametrize("command", ALL)
def test_samples_come_in_the_order_that_was_asked_for(command):
    report = audit(command)
    assert tuple(sample.index for sample in report.samples) == MIXED
    assert report.data.indices == MIXED
    with np.load(DATA) as archive:
        assert [sample.label for sample in report.samples] == archive["labels"][list(MIXED)].tolist()


def test_a_sample_s_verdict_does_not_depend_on_the_others():
    alone = [audit(index=(index,)).samples[0] for index in MIXED]
    for ours, theirs in zip(alone, audit().samples, strict=True):
        assert ours.results[0].model_copy(update={"seconds": None}) == theirs.results[0].model_copy(
            update={"seconds": None}
        )


@pytest.mark.parametrize("command", ALL)
def test_the_same_seed_gives_the_same_report(command):
    methods = ("random", "sensitivity", "gradient", "sign", "pgd", "lp")
    first, second = (without_times(audit(command, methods=methods, seed=3)) for _ in range(2))
    assert first == second
    assert first["environment"]["seed"] == 3


def test_every_unknown_has_a_reason_and_every_certificate_a_positive_bound():
    report = audit()
    results = [result for sample in report.samples for result in sample.results]
    assert {result.verdict for result in results} == set(Verdict)
    for result in results:
        assert (result.reason is not None) == (result.verdict is Verdict.UNKNOWN)
        assert (result.adversarial is not None) == (result.verdict is Verdict.FALSIFIED)
        if result.verdict is Verdict.CERTIFIED:
            assert result.lower_bound > 0
            assert result.method in ("interval", "linear", "lp")
            assert result.margin_found is None or result.margin_found >= result.lower_bound


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"methods": ("sign",)}, Reason.ATTACKS_FAILED),
        ({"methods": ("interval",)}, Reason.RELAXATION_GAP),
        ({"time_limit": 1e-9}, Reason.TIME_LIMIT),
    ],
)
def test_the_reason_says_why(options, reason):
    (sample,) = audit(index=(37,), **options).samples
    assert (sample.results[0].verdict, sample.results[0].reason) == (Verdict.UNKNOWN, reason)


def test_falsified_is_confirmed_by_two_implementations():
    found = [result.adversarial for sample in audit().samples for result in sample.results if result.adversarial]
    assert found
    for adversarial in found:
        assert [name.split()[0] for name in adversarial.confirmed_by] == ["onnxruntime", "interval", "onnx2torch"]


def no_import():
    raise ImportError("libcudart.so.13: cannot open shared object file")


def another_function(*_, **__):
    return lambda batch: np.zeros((len(batch), 10), np.float32)


def never_runs(*_, **__):
    def run(batch):
        if len(run.asked) > 2:
            raise RuntimeError("no kernel")
        run.asked.append(batch)
        return run.network(batch)

    run.asked = []
    run.network = ORIGINAL(*_, **__)
    return run


ORIGINAL = torch_copy.torch_function


@pytest.mark.parametrize(
    ("name", "instead", "words"),
    [
        ("_import_onnx2torch", no_import, "onnx2torch cannot be imported here (libcudart.so.13"),
        ("_candidates", lambda *_: iter([(20, None)]), "onnx2torch cannot convert the model"),
        ("torch_function", another_function, "the network differs from onnxruntime"),
    ],
    ids=["broken", "refused", "another function"],
)
def test_a_second_opinion_that_is_missing_is_told_once(name, instead, words, monkeypatch):
    monkeypatch.setattr(torch_copy, name, instead)
    report = audit()
    found = [result.adversarial for sample in report.samples for result in sample.results if result.adversarial]
    assert len(found) > 1
    for adversarial in found:
        assert [name.split()[0] for name in adversarial.confirmed_by] == ["onnxruntime", "interval"]
    (told,) = [one for one in report.diagnostics if one.code == "IDL211"]
    assert words in told.message
    assert told.level == "info"


def test_a_second_opinion_that_fails_at_a_point_has_not_confirmed_it(monkeypatch):
    monkeypatch.setattr(torch_copy, "torch_function", never_runs)
    report = audit()
    for sample in report.samples:
        for result in sample.results:
            if result.adversarial:
                assert [name.split()[0] for name in result.adversarial.confirmed_by] == ["onnxruntime", "interval"]


def test_nobody_asks_for_a_second_opinion_where_no_attack_succeeds(monkeypatch):
    monkeypatch.setattr(torch_copy, "_import_onnx2torch", no_import)
    assert "IDL211" not in {told.code for told in audit(eps="0.001", index=(0, 1)).diagnostics}


@pytest.mark.parametrize("done", [0, 1, 3])
@pytest.mark.parametrize("command", ALL)
def test_an_interruption_leaves_a_valid_incomplete_report(command, done, monkeypatch, tmp_path):
    real, calls = decider.decide_sample, itertools.count()

    def decide(*arguments, **named):
        if next(calls) == done * 2:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    one_by_one(monkeypatch)
    monkeypatch.setattr(decider, "decide_sample", decide)
    index = (0, 1, 2, 3, 4)
    report = audit(command, eps="0.001,0.002", index=index, save=tmp_path / "adv.npz")
    assert report.status == "incomplete"
    assert tuple(sample.index for sample in report.samples) == index[:done]
    assert [entry.n for entry in report.summary.per_eps] == [done, done]
    assert report.summary.clean.n == done
    assert from_json(to_json(report)) == report
    assert (tmp_path / "adv.npz").exists()


def test_a_sample_that_was_cut_short_is_left_out_whole(monkeypatch):
    real, calls = decider.decide_sample, itertools.count()

    def decide(*arguments, **named):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    one_by_one(monkeypatch)
    monkeypatch.setattr(decider, "decide_sample", decide)
    report = audit(eps="0.001,0.002", index=(0, 1, 2))
    assert [len(sample.results) for sample in report.samples] == [2]


def test_an_interruption_of_the_second_opinion_keeps_the_verdicts(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(robustness.Subject, "second_opinion", interrupted)
    try:
        report = audit()
    except KeyboardInterrupt:
        pytest.fail("the report is lost")
    assert len(report.samples) == len(MIXED)


def test_progress_counts_every_sample_at_every_radius():
    seen = []
    audit(eps="0.02,0.05", watch=lambda progress: seen.append((progress.done, progress.total)))
    assert seen == [(done, 2 * len(MIXED)) for done in range(2 * len(MIXED) + 1)]


def relabelled(folder, shift):
    with np.load(DATA) as archive:
        path = folder / "relabelled.npz"
        np.savez(path, inputs=archive["inputs"][:20], labels=(archive["labels"][:20] + shift) % 10)
    return path


@pytest.mark.parametrize(("shift", "expected"), [(0, False), (1, True)])
def test_poor_accuracy_is_told(tmp_path, shift, expected):
    report = audit(data=relabelled(tmp_path, shift), eps="0.01", index=None)
    assert ("IDL101" in codes(report)) is expected
    for entry in report.diagnostics:
        assert entry.code != "IDL101" or ("0 of 20" in entry.message and "--scale" in entry.hint)


def ending_with(folder, operator):
    """Write digits_mlp with one more operator at its end."""
    proto = onnx.load(MODEL)
    (output,) = proto.graph.output
    proto.graph.node.append(onnx.helper.make_node(operator, [output.name], ["last"], name="last", axis=1))
    output.name = "last"
    path = folder / "longer.onnx"
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_a_last_softmax_is_left_out_and_told(tmp_path, operator):
    report = audit(model=ending_with(tmp_path, operator))
    (told,) = (entry for entry in report.diagnostics if entry.code == "IDL201")
    assert operator in told.message
    assert report.model.stripped_output == operator
    plain = audit()
    assert "IDL201" not in codes(plain)
    for ours, theirs in zip(report.samples, plain.samples, strict=True):
        assert ours.results[0].verdict is theirs.results[0].verdict


def close_call(folder):
    """Write the sample with the smallest positive margin among many near the line between two classes."""
    subject = open_subject(MODEL)
    with np.load(DATA) as archive:
        x, labels = archive["inputs"].astype(np.float64), archive["labels"]
    one, other = x[0], x[np.flatnonzero(labels != labels[0])[0]]
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        wins = subject.model((one + middle * (other - one))[None])[0].argmax() == labels[0]
        low, high = (middle, high) if wins else (low, middle)
    noise = np.random.default_rng(0).uniform(-1e-7, 1e-7, (4000, 64))
    points = np.clip(one + low * (other - one) + noise, 0, 1).astype(np.float32)
    ours, theirs = subject.model(points.astype(np.float64)), subject.original(points)
    rivals = np.delete(ours, labels[0], axis=1).max(axis=1)
    margin = np.where(theirs.argmax(axis=1) == labels[0], ours[:, labels[0]] - rivals, -1.0)
    best = int(np.argmin(np.where(margin > 3e-7, margin, np.inf)))
    path = folder / "close.npz"
    np.savez(path, inputs=points[[best]], labels=labels[[0]])
    return path


def test_a_margin_below_the_noise_of_float32_is_told(tmp_path):
    report = audit(data=close_call(tmp_path), eps="1e-10", index=None)
    (result,) = report.samples[0].results
    assert result.verdict is Verdict.CERTIFIED
    (told,) = (entry for entry in report.diagnostics if entry.code == "IDL202")
    assert told.where == "samples 0"
    assert "IDL202" not in codes(audit(eps="0.001"))


def test_a_sample_outside_the_valid_range_is_named_before_any_work(monkeypatch):
    monkeypatch.setattr(decider, "decide_sample", lambda *_, **__: pytest.fail("a sample was decided"))
    with pytest.raises(DataError, match=r"sample 3: input \d+ is .* above the valid data range's 0.5"):
        audit(index=(3,), bounds=(0.0, 0.5))


def test_refusals_are_errors_of_ours(tmp_path):
    with pytest.raises(OptionError, match="covers the whole range"):
        audit(eps="8")
    with pytest.raises(OptionError, match="no method"):
        audit(methods=("none",))
    with np.load(DATA) as archive:
        np.savez(tmp_path / "unlabelled.npz", inputs=archive["inputs"][:2])
    with pytest.raises(DataError, match="no labels"):
        audit(data=tmp_path / "unlabelled.npz", index=None)
    proto = onnx.load(MODEL)
    proto.graph.node.append(onnx.helper.make_node("Hardmax", [proto.graph.output[0].name], ["last"], name="wave"))
    proto.graph.output[0].name = "last"
    onnx.save(proto, tmp_path / "wave.onnx")
    with pytest.raises(UnsupportedModelError, match="Hardmax node 'wave'"):
        audit(model=tmp_path / "wave.onnx")
