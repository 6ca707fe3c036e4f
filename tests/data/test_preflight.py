"""The preflight: the reading that does better is named with both counts, and what is odd about samples is told."""

from __future__ import annotations

import numpy as np
import pytest

from idl_audit.data import preflight
from idl_audit.data.numbers import parse_eps
from idl_audit.data.preflight import inspect_samples
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.samples import Samples

SHAPE = (1, 3, 4, 4)
N = 60
RNG = np.random.default_rng(1)
BYTES = RNG.integers(0, 256, (N, 3, 4, 4)).astype(np.float64)
INNER, OUTER = 2 * RNG.normal(size=(48, 64)), RNG.normal(size=(64, 10))
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def predict(inputs):
    """A network that gives other classes wherever its inputs are read otherwise."""
    return np.cos(inputs.astype(np.float64) @ INNER) @ OUTER


def trained(images, scale=1.0, mean=0.0, std=1.0):
    """Return the labels that the network gives when it reads images as in its training."""
    read = (images * scale - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    return predict(read.reshape(len(images), 48)).argmax(axis=1)


def samples(images, labels=None, dtype="float32"):
    return Samples(
        inputs=np.asarray(images, np.float64).reshape(len(images), -1),
        labels=labels,
        indices=np.arange(len(images)),
        source="data",
        sha256="0" * 64,
        dtype=dtype,
    )


def findings(images, labels=None, *, layout="native", eps=(), network=predict, dtype="float32", shape=SHAPE, **given):
    found = inspect_samples(
        samples(images, labels, dtype),
        Preprocessing(**given),
        layout,
        shape,
        network,
        eps=parse_eps(eps) if eps else (),
    )
    return {one.code: one for one in found}


UNIT = BYTES / 255
NETS = {
    "bytes": (BYTES, trained(BYTES, 1 / 255), "--scale 1/255 "),
    "imagenet": (
        UNIT,
        trained(UNIT, 1, MEAN, STD),
        "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 ",
    ),
    "bytes and imagenet": (
        BYTES,
        trained(BYTES, 1 / 255, MEAN, STD),
        "--scale 1/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 ",
    ),
    "reads bytes": (UNIT, trained(UNIT, 255), "--scale 255 "),
    "nhwc": (UNIT.transpose(0, 2, 3, 1), trained(UNIT), "--layout nhwc "),
    "bgr": (UNIT[:, ::-1], trained(UNIT), "the colours in reverse order "),
    "all": (
        BYTES[:, ::-1].transpose(0, 2, 3, 1),
        trained(BYTES, 1 / 255, [0.5], [0.5]),
        "--scale 1/255 --mean 0.5 --std 0.5 --layout nhwc with the colours in reverse order ",
    ),
    "labels from 1": (UNIT, trained(UNIT) + 1, "labels that count from 0 (subtract 1 from each) "),
}


@pytest.mark.parametrize(("images", "labels", "advice"), NETS.values(), ids=NETS)
def test_the_reading_that_does_better_is_named_with_both_counts(images, labels, advice):
    told = findings(images, labels)["IDL101"]
    right = int((predict(images.reshape(N, 48)).argmax(axis=1) == labels).sum())
    assert right < N / 2
    assert told.message == f"the network predicts the label of only {right} of {N} samples"
    assert told.hint == f"{advice}would raise that from {right} to {N} of {N}; nothing was changed"


def test_what_the_user_said_is_taken_back_where_that_does_better():
    told = findings(UNIT, trained(UNIT), scale=1 / 255)["IDL101"]
    assert told.hint.startswith("--scale 1 without --mean and --std would raise")
    told = findings(
        UNIT.transpose(0, 2, 3, 1).reshape(N, 4, 4, 3).transpose(0, 3, 1, 2), trained(UNIT[:, :]), eps="0.1"
    )
    assert "IDL101" not in told


def test_a_layout_of_the_user_is_taken_back_too():
    wrong = UNIT.reshape(N, 4, 4, 3).transpose(0, 3, 1, 2)  # rows in the model's order, read as nhwc
    told = findings(wrong, trained(UNIT), layout="nhwc")["IDL101"]
    assert told.hint.startswith("--layout native would raise")


def test_good_accuracy_tries_nothing(monkeypatch):
    monkeypatch.setattr(preflight, "readings", lambda *_, **__: pytest.fail("readings were tried"))
    assert findings(UNIT, trained(UNIT)) == {}


def test_hopeless_labels_get_no_advice():
    told = findings(UNIT, np.random.default_rng(5).integers(0, 10, N))["IDL101"]
    assert told.hint == "give the preprocessing it was trained with: --scale, --mean, --std, --layout"


def test_a_network_that_gives_no_numbers_is_right_on_nothing():
    told = findings(UNIT, trained(UNIT), network=lambda inputs: np.full((len(inputs), 10), np.nan))["IDL101"]
    assert told.message.startswith("the network predicts the label of only 0 of 60")


def test_trying_ends_with_the_time(monkeypatch):
    monkeypatch.setattr(preflight, "SECONDS", -1.0)
    told = findings(BYTES, trained(BYTES, 1 / 255))["IDL101"]
    assert "give the preprocessing" in told.hint


def test_at_most_100_samples_spread_over_all_are_tried():
    seen = []

    def watching(inputs):
        seen.append(inputs)
        return predict(inputs)

    images = (
        np.repeat(np.arange(1000.0)[:, None] / 1000, 48, axis=1) + np.random.default_rng(0).random((1000, 48)) / 1e4
    )
    findings(images, network=watching)
    (tried,) = seen
    assert tried.shape == (100, 48)
    assert tried[0, 0] < 0.01
    assert tried[-1, 0] > 0.99


ODD = {
    "unscaled": (BYTES, {}, "IDL102", "whole numbers from 0 to 255"),
    "narrow": (UNIT, {"bounds": (0.0, 255.0)}, "IDL102", "a small part of the valid range 0 to 255"),
    "cut": (np.round(UNIT), {"dtype": "uint8"}, "IDL103", "of type uint8 and nothing but 0 and 1"),
    "constant": (np.concatenate([UNIT, np.zeros((1, 3, 4, 4))]), {}, "IDL104", "1 of 61 samples are one number"),
    "repeated": (np.concatenate([UNIT, UNIT[:2]]), {}, "IDL105", "2 of 62 samples repeat earlier ones: 60, 61"),
    "small eps": (BYTES, {"eps": "8/255"}, "IDL107", "eps 8/255 is less than one grey level"),
}


@pytest.mark.parametrize(("images", "options", "code", "words"), ODD.values(), ids=ODD)
def test_what_is_odd_is_told(images, options, code, words):
    assert words in findings(images, **options)[code].message


@pytest.mark.parametrize(("eps", "advice"), [("8/255", "-e 8 for 8/255"), ("0.03", "-e 7.65 for 0.03")])
def test_eps_on_bytes_is_named_in_grey_levels(eps, advice):
    assert advice in findings(BYTES, eps=eps)["IDL107"].hint
    assert "IDL107" not in findings(UNIT, eps=eps)
    assert "IDL107" not in findings(BYTES, eps="8")


def test_repeated_samples_with_other_labels_are_counted():
    labels = trained(UNIT)
    twice = np.concatenate([labels, [labels[0], (labels[1] + 1) % 10]])
    told = findings(np.concatenate([UNIT, UNIT[:2]]), twice)["IDL105"]
    assert "2 of 62 samples repeat earlier ones, 1 of them with another label" in told.message


def test_probabilities_are_told():
    def softmax(inputs):
        odds = np.exp(predict(inputs) - predict(inputs).max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    assert findings(UNIT, network=softmax)["IDL106"].level == "info"


def test_ordinary_samples_are_not_odd():
    assert findings(UNIT, eps="0.03", bounds=(0.0, 1.0)) == {}


@pytest.mark.parametrize(
    ("inputs", "shape", "more"),
    [
        (BYTES % 17, SHAPE, {"bounds": (0.0, 16.0)}),
        (BYTES % 17, SHAPE, {}),
        (BYTES % 101, SHAPE, {"bounds": (0.0, 100.0)}),
        (BYTES.reshape(N, 48)[:, :5], (1, 5), {}),  # a table
    ],
)
def test_whole_numbers_that_are_no_picture_are_not_taken_for_bytes(inputs, shape, more):
    found = findings(inputs, shape=shape, network=lambda u: u[:, :2], eps="0.5", **more)
    assert not {"IDL102", "IDL107"} & set(found)
    assert {"IDL102", "IDL107"} <= set(findings(BYTES, network=lambda u: u[:, :2], eps="0.5"))
