"""Samples in .tar files and in several files: those of one array, whatever damage is done to a header."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from idl_audit.data.samples import Samples, read_samples, stream_samples
from idl_audit.values.errors import DataError

P, SHAPE = 12, (1, 1, 3, 4)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def read(path: Path, **more) -> Samples:
    return read_samples(path, input_shape=SHAPE, n_classes=5, **more)


def rows(n: int = 11) -> np.ndarray:
    return np.random.default_rng(n).random((n, P)).astype(np.float32)


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def tar(members: list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def arrays(array: np.ndarray, prefix: str = "s") -> list[tuple[str, bytes]]:
    return [
        pair
        for i, row in enumerate(array)
        for pair in ((f"{prefix}{i:05d}.npy", npy(row.reshape(3, 4))), (f"{prefix}{i:05d}.cls", b"%d\n" % (i % 5)))
    ]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("prefix", ["s", "a/b/../../../../etc/", "long" * 60 + "/x"], ids=["plain", "outside", "long"])
def test_arrays_in_a_tar_are_those_that_were_put_in(tmp_path: Path, form: int, prefix: str) -> None:
    if len(prefix) > 200 and form == tarfile.USTAR_FORMAT:
        pytest.skip("ustar has no such names")
    path = tmp_path / "d.tar"
    path.write_bytes(tar(arrays(rows(), prefix), form))
    found = read(path, index=(7, 0, 3))
    np.testing.assert_array_equal(found.inputs, rows()[[7, 0, 3]])
    assert found.labels is not None
    assert found.labels.tolist() == [2, 0, 3]
    assert [one.name for one in tmp_path.iterdir()] == ["d.tar"]


def test_images_in_a_tar_are_those_of_a_folder(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 4), np.uint8)
    path, folder = tmp_path / "d.tar", tmp_path / "images"
    folder.mkdir()
    members = [(f"{i}.{kind}", content) for i in range(6) for kind, content in (("png", png(pixels[i])), ("cls", b"1"))]
    path.write_bytes(tar(members))
    for i in range(6):
        (folder / f"{i}.png").write_bytes(png(pixels[i]))
    found = read(path)
    np.testing.assert_array_equal(found.inputs, read(folder).inputs)
    np.testing.assert_array_equal(found.inputs, pixels.reshape(6, P))
    assert found.labels is not None
    assert found.labels.tolist() == [1] * 6
    with pytest.raises(DataError, match="leave --layout out"):
        read(path, layout="nhwc")


@pytest.mark.parametrize("kind", ["npz", "npy", "tar"])
def test_several_files_are_one_data_set(tmp_path: Path, kind: str) -> None:
    whole, labels = rows(), np.arange(11) % 5
    for number, (a, b) in enumerate(((0, 4), (4, 5), (5, 11))):
        path = tmp_path / f"part-{number}.{kind}"
        if kind == "npz":
            np.savez(path, inputs=whole[a:b], labels=labels[a:b])
        elif kind == "npy":
            np.save(path, whole[a:b])
        else:
            path.write_bytes(tar(arrays(whole)[2 * a : 2 * b]))
    known = read(tmp_path)
    np.testing.assert_array_equal(known.inputs, whole)
    assert (known.labels is None) == (kind == "npy")
    if known.labels is not None:
        np.testing.assert_array_equal(known.labels, labels)
    pattern = stream_samples(tmp_path / f"part-[12].{kind}", input_shape=SHAPE, n_classes=5)
    np.testing.assert_array_equal(pattern.read(slice(5, None, -1)).inputs, whole[9:3:-1])
    assert pattern.sha256 != known.sha256


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "several kinds": ({"a.npy": npy(rows()), "b.tar": tar(arrays(rows()))}, "files of several kinds"),
    "other shapes": ({"a.npy": npy(rows()), "b.npy": npy(rows()[:, :5])}, "samples must be of one shape"),
    "no samples": ({"a.tar": tar([("README", b"x")])}, "holds no samples"),
    "nothing to read": ({"a.tar": tar([("a.json", b"{}")])}, "neither an .npy array nor an image"),
    "no class": ({"a.tar": tar(arrays(rows())[:-1])}, "10 of 11 samples have a class"),
    "a class that is none": ({"a.tar": tar([("a.npy", npy(rows()[0])), ("a.cls", b"cat")])}, "no whole number from 0"),
    "objects": ({"a.tar": tar([("a.npy", npy(np.array([None] * P)))])}, "Python objects, which would run code"),
    "twice": ({"a.tar": tar([("a.npy", npy(rows()[0])), ("a.npy", npy(rows()[0]))])}, "has a.npy twice"),
    "unlike": ({"a.tar": tar([("a.npy", npy(rows()[0])), ("b.npy", npy(rows()))])}, "and the first sample float32"),
    "a huge claim": (
        {"a.tar": tar([("a.npy", npy(rows()[0]))])[:124] + b"77777777777" + tar([("a.npy", npy(rows()[0]))])[135:]},
        "damaged header at byte 0",
    ),
    "cut in a header": ({"a.tar": tar(arrays(rows()))[:1400]}, "is truncated"),
    "cut between members": ({"a.tar": tar(arrays(rows()))[:2048]}, "is truncated"),
    "cut in a member": ({"a.tar": tar(arrays(rows()))[:600]}, "is truncated"),
    "two in one": ({"a.tar": tar(arrays(rows(2))) + tar(arrays(rows(2), "t"))}, "more behind its end"),
}


@pytest.mark.parametrize(("files", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_data_set_is_refused_in_one_sentence(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_pattern_without_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file is called"):
        read(tmp_path / "x-*.npz")


@given(st.data())
def test_no_damage_to_a_tar_raises_anything_but_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(tar(arrays(rows(3)), data.draw(st.sampled_from(list(FORMATS.values())))))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("tar") / "d.tar"
    path.write_bytes(content[: data.draw(st.integers(300, len(content)))])
    with contextlib.suppress(DataError):
        assert np.isfinite(read(path).inputs).all()


def test_links_devices_and_folders_are_no_samples(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("a.npy")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name, content in arrays(rows(2)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path = tmp_path / "d.tar"
    path.write_bytes(out.getvalue())
    np.testing.assert_array_equal(read(path).inputs, rows(2))
