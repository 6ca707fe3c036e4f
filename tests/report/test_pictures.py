"""Pictures: PNG files of the right shape, one scale, and inputs turned into images."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import get_data_path
from PIL import Image, ImageFont

from idl_audit.report.input_maps import as_image, in_blocks, is_image
from idl_audit.report.pictures import LIGHT, Cell, draw_blocks, draw_heat_map, draw_structure


def drawn(values, shape, **changes):
    stream = io.BytesIO()
    words = {"largest": float(values.max()), "title": "t", "caption": "c", "unit": "u"} | changes
    draw_heat_map(stream, values, shape=shape, **words)
    return stream.getvalue()


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 1, 8, 6), (8, 6)),
        ((1, 3, 8, 6), (8, 6)),
        ((3, 8, 6), (8, 6)),
        ((1, 8, 6, 3), (8, 6)),
        ((8, 6), (8, 6)),
        ((1, 12, 300), (12, 300)),
        ((1, 784), (1, 784)),
        ((5,), (1, 5)),
        ((1, 2, 3, 4, 5), (1, 120)),
    ],
)
def test_shapes_become_images(shape, expected):
    values = np.random.default_rng(0).random(int(np.prod(shape)))
    assert as_image(values, shape).shape == expected
    assert is_image(shape) == (expected[0] > 1)
    assert as_image(values, shape).sum() == pytest.approx(values.sum())


def test_channels_are_summed_wherever_they_are():
    values = np.random.default_rng(0).random((3, 8, 6))
    expected = values.sum(axis=0)
    np.testing.assert_allclose(as_image(values.reshape(-1), (1, 3, 8, 6)), expected)
    last = values.transpose(1, 2, 0)
    np.testing.assert_allclose(as_image(last.reshape(-1), (1, 8, 6, 3)), expected)


@given(height=st.integers(1, 9), width=st.integers(1, 9), side=st.integers(1, 4))
def test_blocks_keep_the_largest_value(height, width, side):
    image = np.random.default_rng(height * 10 + width).random((height, width))
    found = in_blocks(image, side)
    assert found.shape == (-(-height // side), -(-width // side))
    for (row, column), value in np.ndenumerate(found):
        square = image[row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert value == square.max()


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 3, 4, 4), (1, 64), (700,), (1, 40, 3), (1, 3, 80)])
@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_every_shape_gives_a_png(shape, factor):
    png = drawn(np.random.default_rng(0).random(int(np.prod(shape))) * factor, shape)
    assert png.startswith(b"\x89PNG")
    assert min(pixels(png).shape[:2]) > 200


def test_the_bright_pixel_is_where_the_value_is():
    values = np.zeros((4, 4))
    values[0, 3] = 1.0
    image = pixels(drawn(values.reshape(-1), (4, 4)))
    bright = np.argwhere((image[..., 0] > 240) & (image[..., 2] > 150) & (image[..., 2] < 210))  # magma's upper end
    dark = np.argwhere(image.sum(axis=-1) < 12)
    in_map = bright[bright[:, 1] < dark[:, 1].max()]
    assert np.median(in_map[:, 0]) < np.median(dark[:, 0])
    assert np.median(in_map[:, 1]) > np.median(dark[:, 1])


def test_pictures_on_one_scale_differ_by_their_values_only():
    values = np.random.default_rng(0).random(16)
    same = drawn(values, (4, 4), largest=2.0)
    assert drawn(values, (4, 4), largest=2.0) == same
    assert (pixels(drawn(values / 2, (4, 4), largest=1.0)) != pixels(same)).any()  # the scale is written beside it
    assert (pixels(drawn(values / 2, (4, 4), largest=2.0)) != pixels(same)).any()


def test_hostile_titles_are_drawn_as_they_are():
    assert drawn(np.ones(4), (2, 2), title="$\\frac{1}$ \x1b[31m <b>", caption="$", unit="$_").startswith(b"\x89PNG")


def test_the_structure_is_drawn():
    stream = io.BytesIO()
    edges = np.array([0, 2, 4])
    draw_structure(
        stream,
        density=np.eye(4),
        row_edges=edges,
        column_edges=edges,
        row_names=("a$", "y"),
        column_names=("b", "u"),
        title="$x_",
    )
    assert stream.getvalue().startswith(b"\x89PNG")


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    "names", [["a"], ["node_relu", "node_max_pool2d/abs0"], ["W" * 40] * 30, ["encoder/layer/0"] * 9]
)
def test_names_of_blocks_are_not_cut_off_at_the_border(names, narrow):
    face = ImageFont.truetype(str(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 100)
    drawn = draw_blocks(names, [Cell(0, len(names), 0.5)], theme=LIGHT, narrow=narrow)
    told = re.findall(r'text-anchor: end[^>]*x="([\d.]+)"[^>]*>([^<]*)', drawn)
    assert len(told) > 1
    assert min(float(end) - face.getlength(name) / 10 for end, name in told) > 0
