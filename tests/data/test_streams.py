"""Samples that are read by and by are those that are read at once, and cost no more memory than a part of them."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idl_audit.data import samples as reading
from idl_audit.data.fingerprints import samples_sha256
from idl_audit.data.overview import look_at, unchanged
from idl_audit.data.samples import SampleStream, read_samples, stream_samples
from idl_audit.data.stores import Chained, Filed, Memory, runs, whole
from idl_audit.values.errors import DataError

P = 12
SHAPE = (1, 3, 2, 2)


def filed(array: np.ndarray) -> Filed:
    content = array.tobytes()
    return Filed(array.shape, array.dtype, lambda first, count: content[first : first + count])


def numbers(n: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, P)).astype(np.float32)


@given(st.lists(st.integers(0, 19), min_size=1, max_size=30))
def test_every_store_gives_the_rows_that_are_asked_for(places: list[int]) -> None:
    array, chosen = numbers(), np.array(places)
    chain = Chained((filed(array[:7]), Memory(array[7:8]), filed(array[8:])))
    for store in (Memory(array), filed(array), chain):
        np.testing.assert_array_equal(store.take(chosen, P), array[chosen])
        np.testing.assert_array_equal(whole(store), array)


@given(st.lists(st.integers(0, 9), max_size=20))
def test_runs_are_the_places_again(places: list[int]) -> None:
    found = list(runs(places))
    assert [place for first, count in found for place in range(first, first + count)] == places
    assert all(a + n != b for (a, n), (b, _) in pairwise(found))


def write(path: Path, array: np.ndarray) -> Path:
    labels = np.arange(len(array)) % 3
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.name.startswith("small"):
        np.savez_compressed(path, inputs=array, labels=labels)
    else:
        np.savez(path, inputs=array, labels=labels)
    return path


FILES = ("a.npy", "b.npz", "small.npz")


def stream(path: Path, **more) -> SampleStream:
    return stream_samples(path, input_shape=SHAPE, n_classes=3, **more)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_parts_are_the_whole(tmp_path: Path, name: str, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PART_BYTES", 5 * P * 8)
    path = write(tmp_path / name, np.asarray(numbers(), order=order))
    index = (3, 4, 5, 19, 0, 7, 8, 2)
    known = read_samples(path, input_shape=SHAPE, n_classes=3, index=index)
    found = stream(path, index=index)
    parts = list(found.parts())
    assert [len(places) for places, _ in parts] == [5, 3]
    np.testing.assert_array_equal(np.vstack([part.inputs for _, part in parts]), known.inputs)
    np.testing.assert_array_equal(known.inputs, numbers()[list(index)])
    assert look_at(found).numbers_sha256 == samples_sha256(known)
    backward = found.rows(np.arange(7, -1, -1)).read()
    np.testing.assert_array_equal(backward.inputs, known.inputs[::-1])


def test_channels_move_part_by_part_as_they_do_at_once(tmp_path: Path) -> None:
    images = numbers().reshape(20, 2, 2, 3)
    path = write(tmp_path / "a.npz", images)
    found = stream(path, layout="nhwc").read(slice(4, 9)).inputs
    np.testing.assert_array_equal(found, images.transpose(0, 3, 1, 2).reshape(20, P)[4:9])


@pytest.mark.parametrize("name", FILES)
def test_a_pass_takes_the_memory_of_a_part(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PART_BYTES", 2**16)
    n, p = 10_000, 48
    path = write(tmp_path / name, np.zeros((n, p), np.float32) + np.arange(n, dtype=np.float32)[:, None])
    found = stream_samples(path, input_shape=(1, p), n_classes=3)
    tracemalloc.start()
    seen = look_at(found)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (seen.least, seen.greatest, seen.whole) == (0, n - 1, True)
    assert seen.constant.all()
    assert not seen.repeats.any()
    assert peak < 0.75 * path.stat().st_size or name.startswith("small")
    assert peak < 0.75 * n * p * 4


def test_what_a_pass_sees_is_what_numpy_says_of_all(tmp_path: Path) -> None:
    array = numbers().round(1)
    array[4], array[9], array[11] = array[2], array[2], 0.5
    path = write(tmp_path / "a.npz", array)
    seen = look_at(stream(path))
    assert (seen.least, seen.greatest) == (float(array.min()), float(array.max()))
    assert np.flatnonzero(seen.repeats).tolist() == [4, 9]
    assert seen.contradicted == 2
    assert np.flatnonzero(seen.constant).tolist() == [11]
    np.testing.assert_array_equal(seen.tried.inputs, array)


def test_samples_that_change_meanwhile_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", numbers(2000))
    found = stream(path)
    safe = unchanged(found, look_at(found))
    np.testing.assert_array_equal(safe.read(slice(3, 6)).inputs, numbers(2000)[3:6])
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write(np.float32(0.25).tobytes())
    np.testing.assert_array_equal(safe.read(slice(3, 6)).inputs, numbers(2000)[3:6])
    with pytest.raises(DataError, match="was changed while it was being audited; start again"):
        safe.read(slice(1998, 2000))


def test_a_file_that_is_cut_meanwhile_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", numbers(2000))
    found = stream(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 10)
    with pytest.raises(DataError, match="is truncated: 38 of 48 bytes are there"):
        found.read(slice(1999, 2000))
