"""Pictures of adversarial inputs: pixels that rise are red, that fall blue, and every shape of input is drawn."""

import io

import numpy as np
import pytest
from PIL import Image

from idl_audit.report.pictures import change_png, draw_adversarial


def drawn(original, adversarial, shape, *, bounds=(0.0, 1.0), titles=("a", "b"), caption="c"):
    stream = io.BytesIO()
    draw_adversarial(stream, original, adversarial, shape=shape, bounds=bounds, titles=titles, caption=caption)
    return stream.getvalue()


def red(png, part=slice(None)):
    """Return how many pixels of a part of the width are clearly red."""
    return coloured(png, part, lambda r, g, b: (r > 200) & (g < 60) & (b < 60))


def blue(png, part=slice(None)):
    """Return how many are clearly blue."""
    return coloured(png, part, lambda r, g, b: (r < 60) & (g < 120) & (b > 180))


def coloured(png, part, test):
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    width = pixels.shape[1]
    chosen = pixels[:, part.start and round(part.start * width) : part.stop and round(part.stop * width)]
    return int(test(*np.moveaxis(chosen, 2, 0)).sum())


IN_THE_MIDDLE = slice(0.33, 0.62)  # without the scale beside it


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 3, 8, 8), (8, 8, 3), (1, 8, 8), (64,), (1, 2, 2, 2, 2, 4)])
def test_every_shape_of_input_is_drawn(shape):
    size = int(np.prod(shape))
    original = np.random.default_rng(0).random(size)
    adversarial = original.copy()
    adversarial[size // 2] += 0.3
    assert drawn(original, adversarial, shape).startswith(b"\x89PNG")
    assert red(drawn(original, adversarial, shape)) > 0


def test_each_changed_pixel_is_red_and_no_other():
    original = np.full(64, 0.5)
    areas = []
    for count in (0, 1, 2, 4, 8):
        adversarial = original.copy()
        adversarial[10 : 10 + count] = 1.0
        areas.append(red(drawn(original, adversarial, (8, 8)), IN_THE_MIDDLE))
    assert areas[0] == 0
    one = areas[1]
    assert one > 100
    for count, area in zip((2, 4, 8), areas[2:], strict=True):
        assert area == pytest.approx(count * one, rel=0.1)


def test_pixels_that_fall_are_blue():
    original = np.full(64, 0.5)
    up, down = original.copy(), original.copy()
    up[10:13], down[10:13] = 0.9, 0.1
    rises, falls = drawn(original, up, (8, 8)), drawn(original, down, (8, 8))
    assert (blue(rises, IN_THE_MIDDLE), red(falls, IN_THE_MIDDLE)) == (0, 0)
    assert blue(falls, IN_THE_MIDDLE) == pytest.approx(red(rises, IN_THE_MIDDLE), rel=0.1)


def test_the_channel_that_changes_most_says_which_way_a_pixel_goes():
    change = np.zeros((2, 2, 2))  # two channels of 2 x 2
    change[:, 0, 0], change[:, 1, 1] = (0.1, -0.4), (0.3, -0.2)
    pixels = np.asarray(Image.open(io.BytesIO(change_png(change.ravel(), (1, 2, 2, 2)))).convert("RGBA")).astype(int)
    assert pixels[0, 0, 2] > pixels[0, 0, 0]
    assert pixels[1, 1, 0] > pixels[1, 1, 2]
    assert pixels[0, 0, 3] > pixels[1, 1, 3] > 0
    assert pixels[0, 1, 3] == 0


def test_few_changed_pixels_are_framed_in_the_result_and_many_are_not():
    original = np.full(64, 0.5)
    few, many = original.copy(), original.copy()
    few[[3, 40]] = 0.25
    many[::2] = 0.25
    assert red(drawn(original, few, (8, 8)), slice(0.66, None)) > 0
    assert red(drawn(original, many, (8, 8)), slice(0.7, None)) == 0


def test_an_input_without_change_or_contrast_is_drawn():
    same = np.full(16, 3.0)
    for shape in ((4, 4), (16,)):
        assert drawn(same, same, shape, bounds=None).startswith(b"\x89PNG")


def test_hostile_names_are_drawn_as_they_are():
    values = np.zeros(16)
    assert drawn(values, values, (4, 4), titles=("$x", "\x1b[31m"), caption="$\\frac{1}{0}$").startswith(b"\x89PNG")


def test_the_same_input_gives_the_same_bytes():
    original = np.random.default_rng(0).random(64)
    assert drawn(original, original * 0.9, (8, 8)) == drawn(original, original * 0.9, (8, 8))
