"""From data units to the network's input, against plain numpy."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idl_audit.data.preprocessing import Preprocessing, channel_axis
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.options import build

IMAGENET = Preprocessing(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), bounds=(0, 255))


def test_channels_of_images_against_plain_numpy():
    u = np.random.default_rng(0).integers(0, 256, (7, 3, 5, 4)).astype(np.float64)
    expected = (u / 255 - np.reshape(IMAGENET.mean, (3, 1, 1))) / np.reshape(IMAGENET.std, (3, 1, 1))
    found = IMAGENET.apply(u.reshape(7, -1), (1, 3, 5, 4))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.reshape(7, -1), rtol=1e-6)


@pytest.mark.parametrize(
    ("mean", "input_shape", "expected"),
    [
        ((), (1, 2, 3), [0] * 6),
        ((2.0,), (1, 2, 3), [2] * 6),
        ((1.0, 2.0), (1, 2, 3), [1, 1, 1, 2, 2, 2]),
        ((1.0, 2.0), (1, 2, 1, 2), [1, 1, 2, 2]),
        ((1.0, 2.0, 3.0), (1, 3), [1, 2, 3]),
        ((1.0, 2.0, 3.0), (3,), [1, 2, 3]),
        ((1.0, 2.0), (2, 1, 2), [1, 1, 2, 2]),
        ((1.0, 2.0, 3.0, 4.0), (1, 1, 2, 2), [1, 2, 3, 4]),
        ((1.0,), (), [1]),
    ],
)
def test_mean_is_spread_over_channels(mean, input_shape, expected):
    factor, offset = Preprocessing(mean=mean).affine(input_shape)
    np.testing.assert_array_equal(-offset, expected)
    np.testing.assert_array_equal(factor, np.ones(len(expected)))
    assert factor.dtype == offset.dtype == np.float64


numbers = st.floats(-1e3, 1e3)
positives = st.floats(1e-3, 1e3)


@given(
    numbers.filter(lambda x: abs(x) > 1e-90),
    st.lists(numbers.filter(lambda x: x == 0 or abs(x) > 1e-90), min_size=2, max_size=2),
    st.lists(positives, min_size=2, max_size=2),
)
def test_affine_and_apply_are_one_function(scale, mean, std):
    made = Preprocessing(scale=scale, mean=tuple(mean), std=tuple(std))
    u = np.random.default_rng(1).uniform(0, 1, (3, 8))
    factor, offset = made.affine((1, 2, 2, 2))
    size = np.abs(factor * u) + np.abs(offset)
    assert (np.abs(made.apply(u, (1, 2, 2, 2)) - (factor * u + offset)) <= 1e-6 * size + 1e-30).all()


def test_apply_rounds_to_float32_once():
    u = np.random.default_rng(2).uniform(0, 255, (4, 6))
    made = Preprocessing(scale=1 / 255, mean=(0.1307,), std=(0.3081,))
    np.testing.assert_array_equal(made.apply(u, (1, 6)), ((u * (1 / 255) - 0.1307) / 0.3081).astype(np.float32))
    np.testing.assert_array_equal(made.apply(u[0], (1, 6)), made.apply(u, (1, 6))[0])


@pytest.mark.parametrize(
    ("made", "identity"),
    [
        (Preprocessing(), True),
        (Preprocessing(mean=(0.0, 0.0), std=(1.0,), bounds=(0, 1)), True),
        (Preprocessing(scale=2.0), False),
        (Preprocessing(mean=(0.0, 0.1)), False),
        (Preprocessing(std=(1.0, 2.0)), False),
    ],
)
def test_is_identity(made, identity):
    assert made.is_identity is identity
    if identity:
        u = np.arange(4.0)
        np.testing.assert_array_equal(made.apply(u, (1, 2, 2)), u)


def test_channel_axis():
    assert [channel_axis(shape) for shape in ((1, 3, 2, 2), (1, 5), (5,), (3, 2, 2), ())] == [1, 1, 0, 0, 0]


def test_options_are_parsed():
    given = {"scale": "1/255", "mean": "0.485, 0.456,0.406", "std": "0.229,0.224,0.225", "bounds": "0,255"}
    assert build(Preprocessing, given) == IMAGENET
    assert build(Preprocessing, {}) == Preprocessing()


REFUSED = {
    "scale 0": ({"scale": "0"}, "--scale must be a finite number other than 0, not 0.0; write for example 1/255"),
    "scale text": ({"scale": "nan"}, "--scale has 'nan' where a number such as 0.03 or 8/255 is expected"),
    "std 0": ({"std": "0.1,0"}, "--std must hold finite numbers above zero, not 0.1,0"),
    "std negative": ({"std": "-1"}, "--std must hold finite numbers above zero, not -1"),
    "mean empty": ({"mean": ""}, "--mean has '' where a number such as 0.03 or 8/255 is expected"),
    "mean gap": ({"mean": "1,,2"}, "--mean has '' where a number such as 0.03 or 8/255 is expected"),
    "bounds one": ({"bounds": "1"}, "--bounds needs LO,HI with LO < HI, not '1'; write for example --bounds 0,1"),
    "bounds order": ({"bounds": "1,0"}, "--bounds needs LO,HI with LO < HI, not '1,0'; write for example --bounds 0,1"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_options_are_refused_in_one_sentence(options, message):
    with pytest.raises(OptionError) as caught:
        build(Preprocessing, options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": math.inf}, "--scale must be a finite number other than 0, not inf"),
        ({"mean": (math.nan,)}, "--mean must hold finite numbers, not nan"),
        ({"std": (math.inf,)}, "--std must hold finite numbers above zero, not inf"),
        ({"bounds": (0.0, math.inf)}, "--bounds needs finite LO,HI with LO < HI, not 0,inf"),
        ({"bounds": (1.0, 1.0)}, "--bounds needs finite LO,HI with LO < HI, not 1,1"),
    ],
)
def test_fields_are_refused(fields, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        Preprocessing(**fields)


@pytest.mark.parametrize(
    ("fields", "input_shape", "message"),
    [
        (
            {"mean": (1.0, 2.0)},
            (1, 3, 2, 2),
            "--mean has 2 numbers, but the model's input has shape (1, 3, 2, 2); "
            "give one number, or one per channel (3)",
        ),
        (
            {"std": (1.0, 2.0, 3.0)},
            (1, 1, 2, 2),
            "--std has 3 numbers, but the model's input has shape (1, 1, 2, 2); give one number, or one per input (4)",
        ),
    ],
)
def test_lengths_must_fit_the_model(fields, input_shape, message):
    with pytest.raises(OptionError) as caught:
        Preprocessing(**fields).affine(input_shape)
    assert str(caught.value) == message


def test_results_beyond_float32_are_refused():
    with pytest.raises(DataError) as caught:
        Preprocessing(scale=1e30).apply(np.array([[1.0], [1e20]]), (1, 1))
    assert str(caught.value) == (
        "row 1 of the inputs leaves the range of float32 after preprocessing; "
        "check the data and --scale, --mean and --std"
    )
