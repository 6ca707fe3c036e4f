"""Public networks and MNIST, where they are at hand: IDL_AUDIT_DATA names their folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.convert import convert
from idl_audit.commands.options.models import ConvertOptions
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options
from idl_audit.report.schema import Verdict
from idl_audit.search.attacks import ATTACKS, AttackOptions, Target, run_attack
from idl_audit.values.box import Box
from idl_audit.values.query import Query

pytestmark = pytest.mark.skipif(
    "IDL_AUDIT_DATA" not in os.environ, reason="needs the environment variable IDL_AUDIT_DATA (a folder of networks)"
)

FOLDER = Path(os.environ.get("IDL_AUDIT_DATA", "."))
MNIST = FOLDER / "vnncomp/mnist_fc/mnist-net_256x2.onnx"
EPS = 0.02


@pytest.mark.parametrize(
    "name",
    ["vnncomp/mnist_fc/mnist-net_256x2.onnx", "vnncomp/cifar10_resnet/resnet_2b.onnx"],
    ids=lambda name: Path(name).stem,
)
def test_public_networks_are_converted(tmp_path, name):
    report = convert(FOLDER / name, tmp_path / "x.npz", ConvertOptions())
    check = report.conversion.check
    assert check.max_rel_error <= 1e-4
    assert check.argmax_agreement == check.n == 20
    assert report.conversion.norm_inf_A.after <= 0.5


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The first 20 test images, in [0, 1]."""
    path = tmp_path_factory.mktemp("mnist") / "mnist_20.npz"
    with np.load(FOLDER / "mnist.npz") as archive:
        np.savez(path, inputs=archive["test_images"][:20] / 255.0, labels=archive["test_labels"][:20])
    return path


@pytest.fixture(scope="module")
def report(images):
    data = DataOptions(images, preprocessing=Preprocessing(bounds=(0.0, 1.0)))
    return audit_robustness("certify", MNIST, RobustnessOptions(eps=parse_eps(str(EPS)), data=data, verdicts=Options()))


@pytest.mark.slow
def test_counts_on_mnist_are_as_good_as_they_were(report):
    (counts,) = report.summary.per_eps
    assert counts.n == 20
    assert counts.certified + counts.falsified + counts.unknown + counts.clean_wrong == 20
    assert counts.certified >= 12
    assert counts.falsified >= 5


@pytest.mark.slow
def test_every_unknown_on_mnist_has_a_reason(report):
    for sample in report.samples:
        assert all(result.reason for result in sample.results if result.verdict is Verdict.UNKNOWN)


@pytest.mark.slow
def test_no_attack_flips_a_certified_image(report, images):
    subject = open_subject(MNIST)
    network = subject.network(Preprocessing())
    with np.load(images) as archive:
        inputs = archive["inputs"].reshape(20, -1).astype(np.float64)
    certified = [sample for sample in report.samples if sample.results[0].verdict is Verdict.CERTIFIED]
    assert certified
    for sample in certified:
        x = inputs[sample.index]
        box = Box.around(x, EPS, valid_lo=0.0, valid_hi=1.0)
        query = Query.misclassification(box, subject.model.n_outputs, sample.label)
        target = Target.of(subject.model, network, x, query)
        for name in ATTACKS:
            for seed, fraction in ((0, 0.1), (1, 0.5)):
                options = AttackOptions(restarts=2, fraction=fraction)
                assert not run_attack(name, target, options, np.random.default_rng(seed)), (sample.index, name)
        assert target.judge.best.margin >= sample.results[0].lower_bound - 1e-4


@pytest.mark.slow
def test_every_attack_on_mnist_is_confirmed_by_the_original_network(report):
    falsified = [sample for sample in report.samples if sample.results[0].verdict is Verdict.FALSIFIED]
    assert falsified
    for sample in falsified:
        assert sample.results[0].adversarial.confirmed_by[0].startswith("onnxruntime")
        assert sample.results[0].adversarial.class_ != sample.label
