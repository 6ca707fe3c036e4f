"""Samples and labels out of files: what is read, in which order, and every refusal's sentence."""

import contextlib
import hashlib
import io
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from idl_audit.data import array_files, samples
from idl_audit.data.sample_files import READABLE
from idl_audit.data.samples import read_samples
from idl_audit.values.errors import DataError

SHAPE = (1, 3, 2, 4)
P = 24


def images(n=5, shape=SHAPE[1:], dtype=np.float32):
    return np.arange(n * int(np.prod(shape)), dtype=dtype).reshape(n, *shape)


@pytest.fixture
def save(tmp_path):
    """Write arrays as an .npz file, or one array as .npy; return the path."""

    def write(array=None, **arrays):
        path = tmp_path / ("data.npy" if array is not None else "data.npz")
        if array is not None:
            np.save(path, array)
        else:
            np.savez(path, **arrays)
        return path

    return write


def read(path, **options):
    return read_samples(path, **({"input_shape": SHAPE, "n_classes": 10} | options))


def npy(shape, descr="<f4", data=b"", version=b"\x01\x00"):
    """Return the bytes of an .npy file with a header that we choose."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_reads_inputs_labels_and_provenance(save):
    path = save(images=images(), labels=np.arange(5))
    found = read(path)
    assert found.inputs.dtype == np.float64
    np.testing.assert_array_equal(found.inputs, images().reshape(5, P))
    np.testing.assert_array_equal(found.labels, np.arange(5))
    np.testing.assert_array_equal(found.indices, np.arange(5))
    assert (found.n, found.source) == (5, str(path))
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["inputs", "images", "x", "X"])
@pytest.mark.parametrize("label_name", ["labels", "y"])
def test_known_names(save, name, label_name):
    found = read(save(**{name: images(), label_name: np.arange(5), "other": np.zeros(3)}))
    assert found.n == 5
    assert found.labels.tolist() == [0, 1, 2, 3, 4]


def test_the_first_known_name_wins(save):
    found = read(save(x=images() + 1, inputs=images(), y=np.ones(5, int), labels=np.zeros(5, int)))
    np.testing.assert_array_equal(found.inputs, images().reshape(5, P))
    assert found.labels.tolist() == [0] * 5


def test_the_format_is_decided_by_content(save, tmp_path):
    path = save(images()).rename(tmp_path / "data.npz")
    assert read(path).n == 5
    assert read(path).labels is None


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64, ">f4", np.bool_]),
        st.tuples(st.integers(1, 4), st.just(6)),
        elements={"min_value": 0, "max_value": 1},
    ),
    st.booleans(),
)
def test_numbers_survive_unchanged_whatever_their_type_and_order(tmp_path_factory, array, fortran):
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, np.asfortranarray(array) if fortran else array)
    found = read_samples(path, input_shape=(1, 2, 3), n_classes=None)
    np.testing.assert_array_equal(found.inputs, array.astype(np.float64))


def test_bytes_stay_numbers_from_0_to_255(save):
    found = read(save(np.full((2, P), 255, np.uint8)))
    assert (found.inputs == 255.0).all()


def test_compressed_files_are_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=images())
    assert read(tmp_path / "x.npz").n == 5


@pytest.mark.parametrize(
    ("shape", "input_shape", "n"),
    [
        ((5, 3, 2, 4), SHAPE, 5),
        ((5, 1, 3, 2, 4), SHAPE, 5),
        ((5, 24), SHAPE, 5),
        ((5, 4, 6), SHAPE, 5),
        ((3, 2, 4), SHAPE, 1),
        ((1, 3, 2, 4), SHAPE, 1),
        ((24,), SHAPE, 1),
        ((2, 4), (1, 1, 2, 4), 1),
        ((7, 784), (1, 784, 1), 7),
        ((5,), (5,), 1),
        ((9, 5), (5,), 9),
        ((7,), (1, 1), 7),
        ((), (1,), 1),
    ],
)
def test_samples_with_the_right_number_of_elements_are_reshaped(save, shape, input_shape, n):
    array = np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape)
    found = read(save(array), input_shape=input_shape)
    np.testing.assert_array_equal(found.inputs, array.reshape(n, -1))


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("nchw", (5, 3, 2, 4)),
        ("nchw", (5, 1, 3, 2, 4)),
        ("nchw", (3, 2, 4)),
        ("flat", (5, 24)),
        ("flat", (24,)),
    ],
)
def test_other_layouts_than_nhwc_only_reshape(save, layout, shape):
    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    np.testing.assert_array_equal(read(save(array), layout=layout).inputs, array.reshape(-1, P))


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: x[:, None], lambda x: x[0]], ids=["n", "n1", "single"])
def test_nhwc_is_transposed_to_the_order_of_the_model(save, wrap):
    original = images()
    found = read(save(wrap(original.transpose(0, 2, 3, 1))), layout="nhwc")
    np.testing.assert_array_equal(found.inputs, original.reshape(5, P)[: found.n])


@pytest.mark.parametrize("shape", [(5, 2, 4), (5, 2, 4, 1), (5, 1, 2, 4)])
def test_nhwc_with_one_channel_needs_no_channel_axis(save, shape):
    array = np.arange(40.0).reshape(shape)
    found = read(save(array), input_shape=(1, 1, 2, 4), layout="nhwc")
    np.testing.assert_array_equal(found.inputs, array.reshape(5, 8))


# ---- which samples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"limit": 2}, [0, 1]),
        ({"limit": 99}, [0, 1, 2, 3, 4]),
        ({"index": [4, 0]}, [4, 0]),
        ({"index": (4, 0, 2), "limit": 2}, [4, 0]),
    ],
)
def test_selection_keeps_inputs_labels_and_indices_together(save, options, indices):
    found = read(save(x=images(), y=np.arange(5)), **options)
    assert found.indices.tolist() == indices
    assert found.labels.tolist() == indices
    np.testing.assert_array_equal(found.inputs, images().reshape(5, P)[indices])


def test_nan_in_samples_that_nobody_asked_for_is_no_matter(save):
    array = images()
    array[3] = np.nan
    assert read(save(array), index=[0, 4]).n == 2


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63 - 1])
def test_whole_numbers_that_float64_does_not_hold_are_refused(save, number):
    path = save(inputs=np.array([[1, 2**53, 3], [2**62, number, 3]]), labels=np.array([0, 1]))
    with pytest.raises(DataError, match=rf"sample 1 has {number} at input 1, a whole number that float64"):
        read_samples(path, input_shape=(3,), n_classes=2)
    assert read_samples(path, input_shape=(3,), n_classes=2, limit=1).inputs.tolist() == [[1, 2**53, 3]]


def test_missing_labels_of_samples_that_nobody_asked_for_are_no_matter(save):
    path = save(inputs=np.zeros((4, 3)), labels=np.array([0.0, np.nan, 2.0, 1.0]))
    assert read_samples(path, input_shape=(3,), n_classes=3, index=[3, 2]).labels.tolist() == [1, 2]
    with pytest.raises(DataError, match="label of sample 1 is nan"):
        read_samples(path, input_shape=(3,), n_classes=3, index=[1, 2])


@pytest.mark.parametrize("labels", [[0, 9, 3, 3, 1], [[0], [9], [3], [3], [1]], [0.0, 9.0, 3.0, 3.0, 1.0]])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_labels_become_int64(save, labels, dtype):
    found = read(save(x=images(), y=np.array(labels, dtype)))
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [0, 9, 3, 3, 1]


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_a_label_file_replaces_the_labels_of_the_data(save, tmp_path, form):
    other = tmp_path / f"labels.{form}"
    if form == "npy":
        np.save(other, np.full(5, 7))
    else:
        np.savez(other, y=np.full(5, 7))
    assert read(save(x=images(), y=np.zeros(5, int)), labels=other).labels.tolist() == [7] * 5


def test_without_a_number_of_classes_any_label_from_0_will_do(save):
    assert read(save(x=images(), y=np.full(5, 1000)), n_classes=None).labels.tolist() == [1000] * 5


BAD_LABELS = {
    "one-hot": (np.eye(5, 10), "labels have shape (5, 10) and look one-hot; save class numbers, labels.argmax(axis=1)"),
    "too few": (np.zeros(4, int), "labels have shape (4,) for 5 samples; give one class number per sample"),
    "three axes": (
        np.zeros((5, 1, 1), int),
        "labels have shape (5, 1, 1) for 5 samples; give one class number per sample",
    ),
    "another table": (np.zeros((4, 2)), "labels have shape (4, 2) for 5 samples; give one class number per sample"),
    "halves": ([0, 1, 1.5, 2, 2], "the label of sample 2 is 1.5; labels must be whole class numbers from 0"),
    "NaN": ([0, np.nan, 1, 2, 2], "the label of sample 1 is nan; labels must be whole class numbers from 0"),
    "1-based": (
        [1, 2, 3, 9, 10],
        "labels run from 1 to 10 (1-based), but the model's classes are 0 to 9; subtract 1 from every label",
    ),
    "too large": (
        [0, 1, 2, 12, 3],
        "the label of sample 3 is 12, but the model's classes are 0 to 9; check that labels and model belong together",
    ),
    "negative": (
        [0, -1, 2, 3, 3],
        "the label of sample 1 is -1, but the model's classes are 0 to 9; check that labels and model belong together",
    ),
}


@pytest.mark.parametrize(("labels", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_are_refused_in_one_sentence(save, labels, message):
    path = save(x=images(), y=np.array(labels))
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("label", [-1, 2**40])
def test_labels_without_a_number_of_classes_are_still_sane(save, label):
    path = save(x=images(), y=np.full(5, label))
    with pytest.raises(DataError, match=f"sample 0 is {label}, but the model's classes are 0 to 2147483647"):
        read(path, n_classes=None)


def test_a_label_file_is_named_in_its_own_errors(save, tmp_path):
    other = tmp_path / "labels.npz"
    np.savez(other, classes=np.zeros(5))
    with pytest.raises(DataError) as caught:
        read(save(images()), labels=other)
    assert str(caught.value) == f"{other} has no array named labels or y; it has 'classes'"


# ---- what does not fit the model -------------------------------------------------------------------------------------


def broken(value):
    array = images(5, (P,))
    array[3, 7] = value
    return array


MISFITS = {
    "no samples": (
        np.zeros((0, P)),
        {},
        " holds no samples: its array has shape (0, 24); give at least one",
    ),
    "wrong size": (
        np.zeros((5, 32, 32)),
        {},
        ": each sample has 1024 numbers (the array has shape (5, 32, 32)), but the model's input (1, 3, 2, 4) takes "
        "24; give samples with 24 numbers each",
    ),
    "a single number": (
        np.float64(1),
        {},
        ": each sample has 1 numbers (the array has shape ()), but the model's input (1, 3, 2, 4) takes 24; "
        "give samples with 24 numbers each",
    ),
    "NaN": (
        broken(np.nan),
        {},
        ": sample 3 has NaN at input 7; every number must be finite, so mend the file or leave the sample out "
        "with --index",
    ),
    "NaN in a selection": (
        broken(np.nan),
        {"index": [4, 3]},
        ": sample 3 has NaN at input 7; every number must be finite, so mend the file or leave the sample out "
        "with --index",
    ),
    "infinity": (
        broken(-np.inf),
        {},
        ": sample 3 has infinity at input 7; every number must be finite, so mend the file or leave the sample out "
        "with --index",
    ),
    "flat": (
        images(),
        {"layout": "flat"},
        ": --layout flat expects samples of shape (24,) for the model's input (1, 3, 2, 4), not (3, 2, 4); "
        "leave --layout out where the numbers are in the model's order already",
    ),
    "not nchw": (
        np.zeros((5, 2, 4, 3)),
        {"layout": "nchw"},
        ": --layout nchw expects samples of shape (3, 2, 4) for the model's input (1, 3, 2, 4), not (2, 4, 3); "
        "leave --layout out where the numbers are in the model's order already",
    ),
    "not nhwc": (
        images(),
        {"layout": "nhwc"},
        ": --layout nhwc expects samples of shape (2, 4, 3) for the model's input (1, 3, 2, 4), not (3, 2, 4); "
        "leave --layout out where the numbers are in the model's order already",
    ),
    "nhwc without images": (
        np.zeros((5, P)),
        {"layout": "nhwc", "input_shape": (1, P)},
        ": --layout nhwc needs a model that reads images (1, C, H, W), and this one reads (1, 24); leave --layout out",
    ),
    "complex": (
        np.zeros((5, P), complex),
        {},
        " holds values of type <c16; save real numbers, for example with array.astype('float32')",
    ),
    "text": (
        np.full((5, P), "a"),
        {},
        " holds values of type <U1; save real numbers, for example with array.astype('float32')",
    ),
    "records": (
        np.zeros((5, P), [("a", "f4")]),
        {},
        " holds values of type [('a', '<f4')]; save real numbers, for example with array.astype('float32')",
    ),
    "times": (
        np.zeros((5, P), "M8[s]"),
        {},
        " holds values of type <M8[s]; save real numbers, for example with array.astype('float32')",
    ),
    "objects": (
        np.full((5, P), None),
        {},
        " holds Python objects, which would run code; save real numbers, for example with array.astype('float32')",
    ),
}
OPTIONS = {
    "limit": ({"limit": 0}, "--limit must be 1 or more, not 0; {path} has 5 samples"),
    "negative limit": ({"limit": -3, "index": [0]}, "--limit must be 1 or more, not -3; {path} has 5 samples"),
    "too far": ({"index": [0, 5]}, "--index 5 is not in {path}; it has 5 samples, numbered 0 to 4"),
    "negative": ({"index": [-1]}, "--index -1 is not in {path}; it has 5 samples, numbered 0 to 4"),
    "twice": ({"index": [1, 1]}, "--index has 1 twice; give every position in {path} once"),
    "none": ({"index": []}, "--index selects no sample; give positions from 0 to 4 in {path}"),
}


@pytest.mark.parametrize(("array", "options", "message"), MISFITS.values(), ids=MISFITS)
def test_misfits_are_refused_in_one_sentence(save, array, options, message):
    path = save(array)
    with pytest.raises(DataError) as caught:
        read(path, **options)
    assert str(caught.value) == f"{path}{message}"


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_selections_are_refused_in_one_sentence(save, options, message):
    path = save(images())
    with pytest.raises(DataError) as caught:
        read(path, **options)
    assert str(caught.value) == message.format(path=path)


def test_too_many_samples_for_float64_are_refused_before_they_are_made(save, monkeypatch):
    path = save(np.zeros((5, P), np.uint8))
    monkeypatch.setattr(samples, "MAX_ARRAY_BYTES", 5 * P * 8 - 1)
    with pytest.raises(
        DataError, match=r"5 samples of 24 numbers take .* GiB as float64, above the limit of .*--limit"
    ):
        read(path)
    assert read(path, limit=4).n == 4


# ---- files that cannot be read ---------------------------------------------------------------------------------------


def as_npz(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def flipped():
    """Return a stored .npz with one byte of its data changed."""
    stream = io.BytesIO()
    np.savez(stream, x=images())
    data = bytearray(stream.getvalue())
    data[200] ^= 1
    return bytes(data)


ONE_ROW = np.zeros(P, np.float32).tobytes()
CONTENTS = {
    "empty": (b"", f" is empty; {READABLE}"),
    "text": (b"some text\n", " holds no samples: it has only a heading"),
    "bytes": (b"\x00\x01\x02", f" is no file of samples; {READABLE}"),
    "pickle": (
        pickle.dumps([1]),
        " holds more than plain tensors, and is not loaded; save a dict of tensors with "
        "torch.save({'inputs': x, 'labels': y}, path), or use numpy.savez",
    ),
    "no known name": (
        as_npz(a=npy((1,)), b=b""),
        " has no array named inputs, images, x or X; it has 'a', 'b'"
        "; save samples with numpy.savez(FILE, inputs=..., labels=...)",
    ),
    "many names": (
        as_npz(**{f"a{k}": b"" for k in range(12)}),
        " has no array named inputs, images, x or X; it has "
        "'a0', 'a1', 'a2', 'a3', 'a4', 'a5', 'a6', 'a7', 'a8', 'a9' and 2 more"
        "; save samples with numpy.savez(FILE, inputs=..., labels=...)",
    ),
    "no arrays": (
        as_npz(),
        " has no array named inputs, images, x or X; it has none"
        "; save samples with numpy.savez(FILE, inputs=..., labels=...)",
    ),
    "truncated": (
        npy((2, P), data=ONE_ROW),
        " is truncated: shape (2, 24) of float32 takes 192 bytes and 96 are there; copy or write the file again",
    ),
    "truncated member": (
        as_npz(x=npy((2, P), data=ONE_ROW)),
        ": array 'x' is truncated: shape (2, 24) of float32 takes 192 bytes and 96 are there; "
        "copy or write the file again",
    ),
    "less than it says": (
        npy((2**40, P)),
        " is truncated: shape (1099511627776, 24) of float32 takes 105553116266496 bytes and 0 are there; "
        "copy or write the file again",
    ),
    "less than it says in a member": (
        as_npz(x=npy((2**40, P))),
        ": array 'x' is truncated: shape (1099511627776, 24) of float32 takes 105553116266496 bytes and 0 are there; "
        "copy or write the file again",
    ),
    "negative extent": (npy((-1, P)), " declares the shape (-1, 24); write it again with numpy.save"),
    "version 3": (
        npy((1, P), version=b"\x03\x00"),
        " is no .npy array of version 1 or 2; save plain numbers with numpy.save",
    ),
    "objects": (
        npy((1, P), descr="|O", data=pickle.dumps(None)),
        " holds Python objects, which would run code; save real numbers, for example with array.astype('float32')",
    ),
    "half a zip": (
        as_npz(x=npy((1, P), data=ONE_ROW))[:60],
        " cannot be read: File is not a zip file; write it again with numpy.savez or numpy.save",
    ),
    "flipped byte": (
        flipped(),
        " cannot be read: Bad CRC-32 for file 'x.npy'; write it again with numpy.savez or numpy.save",
    ),
}


@pytest.mark.parametrize(("content", "message"), CONTENTS.values(), ids=CONTENTS)
def test_contents_are_refused_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}{message}"


DAMAGED = {
    "only magic": (b"\x93NUMPY", "is no .npy array of version 1 or 2"),
    "only version": (b"\x93NUMPY\x01\x00", "has a damaged .npy header"),
    "half a header": (npy((1, P))[:20], "has a damaged .npy header"),
    "too long": (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{", "has a damaged .npy header"),
    "deep": (b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000, "has a damaged .npy header"),
    "no dictionary": (b"\x93NUMPY\x01\x00\x04\x00[1] ", "has a damaged .npy header"),
    "shape of text": (npy("x"), "declares the shape x"),
    "shape of halves": (npy((1.5,)), "declares the shape (1.5,)"),
    "shape of truths": (npy((True,)), "declares the shape (True,)"),
    "nonsense type": (npy((1,), descr="nonsense"), "holds values of type nonsense"),
    "junk member": (as_npz(x=b"junk"), ": array 'x' is no .npy array of version 1 or 2"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_headers_are_refused(tmp_path, content, message):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)):
        read(path)


@given(st.data())
def test_no_damage_raises_anything_but_a_data_error(tmp_path_factory, data):
    whole = as_npz(x=npy((1, P), data=ONE_ROW), y=npy((1,), descr="<i4", data=bytes(4)))
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("data") / "x.npz"
    path.write_bytes(content[: data.draw(st.integers(4, len(whole)))])
    with contextlib.suppress(DataError):
        read(path)


def test_a_bomb_is_refused_by_its_declared_size(tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "MAX_ARRAY_BYTES", 10_000)
    path = tmp_path / "data.npz"
    path.write_bytes(as_npz(x=npy((1, P), data=ONE_ROW), y=npy((10**6,), descr="|i1", data=bytes(10**6))))
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match=r"the array of labels declares 0.0 GiB, above the limit"):
        read(path)
    with pytest.raises(DataError, match=r"array 'y' declares 0.0 GiB, above the limit"):
        array_files.read_arrays(path, [("y",)])


def test_of_a_bomb_no_more_is_read_than_the_samples_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "data.npz"
    path.write_bytes(as_npz(x=npy((10**6, P), data=bytes(4 * 10**6 * P))))
    sizes = []
    real = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: sizes.append(n) or real(self, n))
    assert read(path, limit=3).inputs.shape == (3, P)
    assert 0 < sum(sizes) < 10_000
    assert min(sizes) > 0


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        read(tmp_path / ("9" * 400))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError) as caught:
        read(tmp_path / "none.npz")
    assert str(caught.value) == f"{tmp_path / 'none.npz'}: no such file; {READABLE}"
    with pytest.raises(DataError, match="is a folder without images"):
        read(tmp_path)
