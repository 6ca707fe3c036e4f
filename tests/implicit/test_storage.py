"""Converted models on disk: the same model back, and never anything but a ModelFileError from a bad file."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idl_audit.implicit.activations import ACTIVATIONS, COUPLED
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.linear_maps import LinearMap, Selection
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.implicit.storage import SCHEMA_VERSION, load_model, save_model
from idl_audit.values.errors import ModelFileError, OptionError
from idl_audit.values.npz import write_npz
from tests.shared.implicit_models import NEWEST, built, floats, node
from tests.shared.map_examples import KINDS
from tests.shared.random_networks import FAMILIES

ORIGIN = {"path": "net.onnx", "sha256": "0" * 64, "note": "with ümlauts, \u0000 and \ud800"}
Meta = dict[str, Any]


def f(rng: np.random.Generator, *shape: int) -> Any:
    return floats(rng, *shape)


def rich(seed: int = 0) -> ImplicitModel:
    """Return a model with convolutions, a max-pool, slopes of each state, curves, a residual and a dense layer."""
    rng = np.random.default_rng(seed)
    nodes = [
        node("Conv", "x a", "h", pads=[1] * 4),
        node("PRelu", "h s", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("ConvTranspose", "p t", "u"),
        node("Elu", "u", "e", alpha=0.7),
        node("GlobalAveragePool", "e", "g"),
        node("Flatten", "g", "k"),
        node("Gemm", "k w b", "z"),
        node("Sigmoid", "z", "q"),
        node("Concat", "q k", axis=1),
    ]
    constants = {
        "a": f(rng, 2, 1, 3, 3),
        "s": f(rng, 2, 4, 4),
        "t": f(rng, 2, 3, 2, 2),
        "w": f(rng, 3, 4),
        "b": f(rng, 4),
    }
    return built(nodes, (1, 1, 4, 4), constants)


def one_map(linear_map: LinearMap) -> ImplicitModel:
    """Return a model without states whose D is this map."""
    output = Affine({}, linear_map, np.zeros(linear_map.n_out), 0.25)
    return ImplicitModel((), (), output, (linear_map.n_in,), (linear_map.n_out,))


def same(found: ImplicitModel, model: ImplicitModel) -> None:
    assert (found.input_shape, found.output_shape, found.stripped_output) == (
        model.input_shape,
        model.output_shape,
        model.stripped_output,
    )
    u = np.random.default_rng(9).normal(size=(3, model.n_inputs))
    np.testing.assert_array_equal(found(u), model(u))
    assert len(found.blocks) == len(model.blocks)
    for one, two in zip(found.blocks, model.blocks, strict=True):
        assert (one.name, one.op, one.shape, one.exponent, one.activation.name) == (
            two.name,
            two.op,
            two.shape,
            two.exponent,
            two.activation.name,
        )
        assert one.maximum is None  # a file could claim any, and intervals would believe it
    for first, second in zip((*found.rows, found.output), (*model.rows, model.output), strict=True):
        assert first.constant_error == second.constant_error
        np.testing.assert_array_equal(first.constant, second.constant)
        assert first.states.keys() == second.states.keys()
        pairs = [(first.states[k], second.states[k]) for k in first.states]
        for a, b in [*pairs, (first.input, second.input)]:
            if a is None or b is None:
                assert a is b
                continue
            assert type(a) is type(b)
            assert a.relative == b.relative
            assert (a.slack is None) == (b.slack is None)
            if a.slack is not None and b.slack is not None:
                assert type(a.slack) is type(b.slack)
                assert (a.slack.to_sparse() != b.slack.to_sparse()).nnz == 0
            assert (a.to_sparse() != b.to_sparse()).nnz == 0


def saved(folder: Path, model: ImplicitModel, **options: Any) -> Path:
    path = folder / "model.npz"
    save_model(path, model, origin=ORIGIN, **options)
    return path


class TestRoundTrips:
    @pytest.mark.parametrize("change", [lambda m: m, rescale])
    def test_a_rich_model(self, tmp_path: Path, change: Callable[[ImplicitModel], ImplicitModel]) -> None:
        model = change(rich())
        stored = load_model(saved(tmp_path, model))
        same(stored.model, model)
        assert stored.origin == ORIGIN
        if model.scaling is None:
            assert stored.model.scaling is None
            return
        assert stored.model.scaling is not None
        for name in ("kappa", "norm_before", "norm_after", "reason"):
            assert getattr(stored.model.scaling, name) == getattr(model.scaling, name)
        assert stored.model.scaling.exponents.keys() == model.scaling.exponents.keys()
        for k, exponents in model.scaling.exponents.items():
            np.testing.assert_array_equal(stored.model.scaling.exponents[k], exponents)

    @pytest.mark.parametrize("kind", sorted(KINDS))
    @pytest.mark.parametrize("seed", range(4))
    def test_every_kind_of_map(self, tmp_path: Path, kind: str, seed: int) -> None:
        plain = KINDS[kind](np.random.default_rng(seed))
        model = one_map(plain.uncertain(1e-9, None if seed % 2 else plain.magnitude))
        same(load_model(saved(tmp_path, model)).model, model)

    @pytest.mark.parametrize("name", sorted(ACTIVATIONS))
    def test_every_activation(self, tmp_path: Path, name: str) -> None:
        given = {
            "leaky_relu": {"alpha": -0.3},
            "elu": {"alpha": 0.0},
            "celu": {"alpha": 2.0},
            "softmax": {"width": 2},
            "normalised": {"width": 2.0, "count": 1.5},
            "contraction": {"rows": 1, "inner": 1, "columns": 1},
            "selu": {"alpha": 1.5, "gamma": 1.1},
            "power": {"exponent": -1.7},
        }
        rng = np.random.default_rng(0)
        dense = KINDS["dense"](rng)
        n = dense.n_out if name not in COUPLED else 2 * dense.n_out
        block = StateBlock("b", "Op", ACTIVATIONS[name](**given.get(name, {})), (1, n))
        identity = one_map(KINDS["identity"](rng)).output.input
        assert identity is not None
        row = Affine({}, type(identity).identity(n), np.zeros(n))  # type: ignore[attr-defined]
        output = Affine({0: type(identity).identity(n)}, None, np.zeros(n))  # type: ignore[attr-defined]
        model = ImplicitModel((block,), (row,), output, (n,), (n,))
        found = load_model(saved(tmp_path, model)).model
        same(found, model)
        assert dict(found.blocks[0].activation.parameters) == dict(block.activation.parameters)

    @pytest.mark.parametrize("family", sorted(FAMILIES))
    def test_random_networks(self, tmp_path: Path, family: str) -> None:
        for seed in range(3):
            model = build_implicit_of(family, seed)
            path = tmp_path / f"{seed}.npz"
            save_model(path, model, origin={})
            same(load_model(path).model, model)

    def test_a_model_without_states_and_one_without_input(self, tmp_path: Path) -> None:
        same(
            load_model(saved(tmp_path, built([node("Identity", "x")], (1, 3)))).model,
            built([node("Identity", "x")], (1, 3)),
        )

    def test_a_softmax_that_was_left_out_is_remembered(self, tmp_path: Path) -> None:
        model = built([node("Softmax", "x")], (1, 3), opset=NEWEST)
        assert load_model(saved(tmp_path, model)).model.stripped_output == "Softmax"

    def test_saving_what_was_loaded_gives_the_same_arrays(self, tmp_path: Path) -> None:
        first = saved(tmp_path, rich())
        second = tmp_path / "again.npz"
        save_model(second, load_model(first).model, origin=ORIGIN)
        with np.load(first) as one, np.load(second) as two:
            assert sorted(one.files) == sorted(two.files)
            for name in one.files:
                np.testing.assert_array_equal(one[name], two[name], strict=True)

    def test_flat_matrices_are_those_of_the_model(self, tmp_path: Path) -> None:
        import scipy.sparse as sp

        model = rich()
        path = saved(tmp_path, model, flat=True)
        same(load_model(path).model, model)
        with np.load(path) as arrays:
            for name, expected in zip("ABCD", model.matrices[:4], strict=True):
                parts = tuple(arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
                found = sp.csr_array(parts, shape=tuple(arrays[f"{name}_shape"]))
                assert (found != expected).nnz == 0


def build_implicit_of(family: str, seed: int) -> ImplicitModel:
    from tests.shared.implicit_models import read

    return build_implicit(read(FAMILIES[family](seed).proto()))


class TestWriting:
    def test_an_existing_file_is_kept_without_force(self, tmp_path: Path) -> None:
        path = tmp_path / "model.npz"
        path.write_bytes(b"precious")
        with pytest.raises(OptionError, match="--force"):
            save_model(path, rich(), origin={})
        assert path.read_bytes() == b"precious"
        save_model(path, rich(), origin={}, force=True)
        same(load_model(path).model, rich())

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="does not exist"):
            save_model(tmp_path / "no" / "model.npz", rich(), origin={})

    def test_a_failure_leaves_no_file_behind(self, tmp_path: Path) -> None:
        path = tmp_path / "model.npz"
        path.write_bytes(b"precious")
        with pytest.raises((ValueError, TypeError)):
            write_npz(path, {"fine": np.zeros(3), "object": np.array([object()])}, force=True)
        with pytest.raises(TypeError):
            save_model(path, rich(), origin={"not": object()}, force=True)
        assert [entry.name for entry in tmp_path.iterdir()] == ["model.npz"]
        assert path.read_bytes() == b"precious"

    def test_the_file_is_readable_as_files_are(self, tmp_path: Path) -> None:
        mask = os.umask(0o027)
        try:
            path = saved(tmp_path, rich())
        finally:
            os.umask(mask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert [entry.name for entry in tmp_path.iterdir()] == ["model.npz"]

    def test_any_name_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "model.implicit"
        save_model(path, rich(), origin={})
        assert [entry.name for entry in tmp_path.iterdir()] == ["model.implicit"]


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def arrays_of(path: Path) -> dict[str, Any]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def edited(folder: Path, change: Callable[[Meta, dict[str, Any]], None], model: ImplicitModel | None = None) -> Path:
    """Return a file in which `change` has edited the meta and the arrays."""
    path = saved(folder, rescale(rich()) if model is None else model)
    arrays = arrays_of(path)
    before = arrays["meta"]
    meta = json.loads(str(before))
    change(meta, arrays)
    if arrays.get("meta") is before:
        arrays["meta"] = np.asarray(json.dumps(meta))
    path.unlink()
    np.savez(path, **arrays)
    return path


def first(arrays: dict[str, Any], ending: str) -> str:
    return next(name for name in arrays if name.endswith(ending))


def put(ending: str, value: Callable[[Any], Any]) -> Callable[[Meta, dict[str, Any]], None]:
    def change(meta: Meta, arrays: dict[str, Any]) -> None:
        name = first(arrays, ending)
        arrays[name] = value(arrays[name])

    return change


def with_nan(array: Any) -> Any:
    result = array.copy()
    result.reshape(-1)[0] = np.nan
    return result


def told(where: Callable[[Meta], Any], key: Any, value: Any) -> Callable[[Meta, dict[str, Any]], None]:
    def change(meta: Meta, arrays: dict[str, Any]) -> None:
        where(meta)[key] = value

    return change


def conv_meta(meta: Meta) -> Meta:
    maps = [m for row in meta["rows"] for m in (*row["states"].values(), row["input"]) if m]
    return next(m for m in maps if m["kind"] == "convolution")


DAMAGE: dict[str, Callable[[Meta, dict[str, Any]], None]] = {
    "no meta": lambda meta, arrays: arrays.pop("meta"),
    "meta is no JSON": lambda meta, arrays: arrays.update(meta=np.array(b"{")),
    "meta is a number": lambda meta, arrays: arrays.update(meta=np.array(3)),
    "meta is a list": lambda meta, arrays: arrays.update(meta=np.array(["a", "b"])),
    "wrong version": told(lambda meta: meta, "schema_version", "99"),
    "no version": lambda meta, arrays: meta.pop("schema_version"),
    "no blocks": lambda meta, arrays: meta.pop("blocks"),
    "no rows": lambda meta, arrays: meta.pop("rows"),
    "a row too few": lambda meta, arrays: meta["rows"].pop(),
    "a block too few": lambda meta, arrays: meta["blocks"].pop(),
    "blocks is a number": told(lambda meta: meta, "blocks", 3),
    "an unknown activation": told(lambda meta: meta["blocks"][0], "activation", "sign"),
    "an unknown parameter": told(lambda meta: meta["blocks"][0], "parameters", {"beta": 1.0}),
    "an unknown kind": told(lambda meta: conv_meta(meta), "kind", "quantum"),
    "a negative shape": told(lambda meta: meta["blocks"][0], "shape", [-1, -4]),
    "another shape": told(lambda meta: meta["blocks"][0], "shape", [1, 5]),
    "another input shape": told(lambda meta: meta, "input_shape", [1, 1, 4, 5]),
    "another output shape": told(lambda meta: meta, "output_shape", [1, 99]),
    "a text for a shape": told(lambda meta: meta, "input_shape", "abc"),
    "a negative error": told(lambda meta: meta["output"], "constant_error", -1.0),
    "an infinite error": told(lambda meta: meta["output"], "constant_error", float("inf")),
    "an error that is no number": told(lambda meta: meta["output"], "constant_error", "big"),
    "A reads a newer block": lambda meta, arrays: meta["rows"][-1].update(
        states={"0": next(iter(meta["rows"][0]["states"].values()))}
    ),
    "A reads a block that is not there": lambda meta, arrays: meta["rows"][0].update(
        states={"99": {"kind": "dense", "error": 0}}
    ),
    "strides of 0": told(lambda meta: conv_meta(meta), "strides", [0, 1]),
    "negative pads": told(lambda meta: conv_meta(meta), "pads", [-1, 1, 1, 1]),
    "too few pads": told(lambda meta: conv_meta(meta), "pads", [1]),
    "no pads": told(lambda meta: conv_meta(meta), "pads", []),
    "too few strides": told(lambda meta: conv_meta(meta), "strides", [1]),
    "groups of 0": told(lambda meta: conv_meta(meta), "groups", 0),
    "huge dilations": told(lambda meta: conv_meta(meta), "dilations", [10**9, 1]),
    "a huge image": told(lambda meta: conv_meta(meta), "spatial_in", [10**9, 10**9]),
    "a fractional shape": told(lambda meta: meta, "input_shape", [1, 1, 4, float("nan")]),
    "kernel: of another rank": put(".kernel", lambda a: a[0]),
    "kernel: missing": lambda meta, arrays: arrays.pop(first(arrays, ".kernel")),
    "kernel: NaN": put(".kernel", with_nan),
    "kernel: infinite": put(".kernel", lambda a: np.where(a == a, np.inf, a)),
    "kernel: text": put(".kernel", lambda a: a.astype("U32")),
    "kernel: complex": put(".kernel", lambda a: a + 1j),
    "kernel: dates": put(".kernel", lambda a: a.astype("M8[s]")),
    "constant: too short": put("b.0", lambda a: a[1:]),
    "constant: missing": lambda meta, arrays: arrays.pop("d"),
    "constant: NaN": put("b.0", with_nan),
    "index: out of range": put(".index", lambda a: a + 10**6),
    "index: below -1": put(".index", lambda a: a - 10**6),
    "index: floats": put(".index", lambda a: a.astype(float)),
    "index: a matrix": put(".index", lambda a: a[None]),
    "index: too short": put(".index", lambda a: a[:-1]),
    "weights: too short": put(".weights", lambda a: a[:-1]),
    "weights: missing": lambda meta, arrays: arrays.pop(first(arrays, ".weights")),
    "slopes: too few": lambda meta, arrays: arrays.update(
        {k: a[1:] for k, a in arrays.items() if k.startswith("phi.")}
    ),
    "slopes: missing": lambda meta, arrays: arrays.pop(next(k for k in arrays if k.startswith("phi."))),
    "exponents: missing": lambda meta, arrays: arrays.pop("exponents.0"),
    "exponents: too short": put("exponents.0", lambda a: a[1:]),
    "exponents: floats": put("exponents.0", lambda a: a.astype(float)),
    "a parameter that is NaN": lambda meta, arrays: [
        b.update(parameters={"alpha": float("nan")}) for b in meta["blocks"] if b["activation"] == "elu"
    ],
    "a negative alpha of an ELU": lambda meta, arrays: [
        b.update(parameters={"alpha": -2.0}) for b in meta["blocks"] if b["activation"] == "elu"
    ],
    "an exponent beyond float64": told(lambda meta: meta["blocks"][0], "exponent", 10**30),
    "an origin that is a text": told(lambda meta: meta, "origin", "abc"),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_damage_is_refused_in_a_sentence(tmp_path: Path, damage: str) -> None:
    refusal(edited(tmp_path, DAMAGE[damage]))


@pytest.mark.parametrize("name", ["under", "beside", "least"])
def test_a_norm_that_has_a_number_for_each_state_is_refused(tmp_path: Path, name: str) -> None:
    """Of one group of two states it would be some function, of others an error where it is asked for a value."""

    def change(meta: Meta, arrays: dict[str, Any]) -> None:
        meta["blocks"][0]["parameters"][name] = None
        arrays[f"phi.0.{name}"] = np.ones(2)

    block = StateBlock("b", "Op", ACTIVATIONS["normalised"](width=2.0, count=1.0), (1, 2))
    row, output = (Affine(states, inputs, np.zeros(2)) for states, inputs in (({}, IDENTITY), ({0: IDENTITY}, None)))
    model = ImplicitModel((block,), (row,), output, (2,), (2,))
    assert "one number for all states" in refusal(edited(tmp_path, change, model))


IDENTITY = Selection.identity(2)


@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
@pytest.mark.parametrize("how", ["missing", "too short", "negative", "far"])
def test_damaged_csr_matrices_are_refused(tmp_path: Path, part: str, how: str) -> None:
    def change(meta: Meta, arrays: dict[str, Any]) -> None:
        name = f"D.{part}"
        array = arrays.pop(name)
        if how != "missing":
            arrays[name] = {"too short": array[:-1], "negative": -array - 1, "far": array + 10**5}[how]

    if part == "data" and how in ("negative", "far"):
        return  # numbers like any other
    model = one_map(KINDS["sparse"](np.random.default_rng(5)))
    refusal(edited(tmp_path, change, model))


class TestFiles:
    def test_what_is_no_archive(self, tmp_path: Path) -> None:
        path = tmp_path / "model.npz"
        assert "there is no such file" in refusal(path)
        for content in (b"", b"PK", b"hello", b"PK\x03\x04" + b"\0" * 40, b"\x93NUMPY\x01\x00"):
            path.write_bytes(content)
            refusal(path)
        refusal(tmp_path)  # a folder

    def test_a_truncated_file(self, tmp_path: Path) -> None:
        path = saved(tmp_path, rich())
        content = path.read_bytes()
        for length in (10, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            refusal(path)

    def test_pickled_objects_are_not_loaded(self, tmp_path: Path) -> None:
        path = saved(tmp_path, rich())
        arrays = arrays_of(path)
        arrays["d"] = np.array([object()] * arrays["d"].size)
        path.unlink()
        np.savez(path, allow_pickle=True, **arrays)
        refusal(path)

    def test_plain_matrices_are_told_apart(self, tmp_path: Path) -> None:
        path = tmp_path / "model.npz"
        np.savez(path, A=np.zeros((1, 1)), meta=np.asarray(json.dumps({"schema_version": SCHEMA_VERSION})))
        assert "has no array B and no array C" in refusal(path)

    def test_a_header_that_claims_terabytes(self, tmp_path: Path) -> None:
        path = saved(tmp_path, rich())
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
        header += b" " * (118 - len(header)) + b"\n"
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("more.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        assert "not what its header says" in refusal(path)

    def test_zeros_without_end(self, tmp_path: Path) -> None:
        path = tmp_path / "model.npz"
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("d.npy", "w", force_zip64=True) as member,
        ):
            for _ in range(64):
                member.write(bytes(2**20))
        # deflate packs zeros a thousand to one, twice the trust that is given
        with zipfile.ZipFile(path) as archive:
            claimed = archive.infolist()[0].file_size
        assert claimed == 64 * 2**20
        refusal(path)

    @pytest.mark.parametrize("name", ["meta.npy", "../d.npy", "d", "d.npy/"])
    def test_members_with_strange_names(self, tmp_path: Path, name: str) -> None:
        path = saved(tmp_path, rich())
        with zipfile.ZipFile(path, "a") as archive:
            if name == "meta.npy":
                with pytest.warns(UserWarning, match="Duplicate name"):
                    archive.writestr(name, b"")
            else:
                archive.writestr(name, b"")
        refusal(path)


def mutations(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the file with a few bytes flipped, cut out, doubled, or zeroed."""
    data = bytearray(content)
    start = int(rng.integers(len(data)))
    match int(rng.integers(5)):
        case 0:
            data[start] ^= 1 << int(rng.integers(8))
        case 1:
            for place in rng.integers(len(data), size=8):
                data[int(place)] = int(rng.integers(256))
        case 2:
            del data[start : start + int(rng.integers(1, 64))]
        case 3:
            data[start:start] = data[start : start + int(rng.integers(1, 64))]
        case _:
            tail = len(data) - int(rng.integers(1, 4000))
            data[max(tail, 0)] = int(rng.integers(256))
    return bytes(data)


def survives(path: Path) -> str:
    """Return what became of loading: "loaded", "refused", or the exception that should not be."""
    try:
        load_model(path)
    except ModelFileError as error:
        return "refused" if "\n" not in str(error) else f"several lines: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "loaded"


@pytest.mark.parametrize("compressed", [True, False])
def test_flipped_bytes_never_raise_anything_else(tmp_path: Path, compressed: bool) -> None:
    path = saved(tmp_path, rescale(rich()))
    if not compressed:
        arrays = arrays_of(path)
        path.unlink()
        np.savez(path, **arrays)
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    found = []
    for _ in range(150):
        path.write_bytes(mutations(content, rng))
        found.append(survives(path))
    assert set(found) <= {"loaded", "refused"}


def test_deleted_members_never_go_unnoticed(tmp_path: Path) -> None:
    path = saved(tmp_path, rescale(rich()))
    arrays = arrays_of(path)
    noticed = {}
    for name in arrays:
        other = tmp_path / "less.npz"
        np.savez(other, **{key: value for key, value in arrays.items() if key != name})
        noticed[name] = survives(other)
    assert [name for name, result in noticed.items() if result != "refused"] == []


def scrambled(value: Any, rng: np.random.Generator) -> Any:
    """Return JSON of the same structure in which one leaf is something else."""
    if isinstance(value, dict) and value:
        key = list(value)[int(rng.integers(len(value)))]
        return {**value, key: scrambled(value[key], rng)}
    if isinstance(value, list) and value:
        k = int(rng.integers(len(value)))
        return [*value[:k], scrambled(value[k], rng), *value[k + 1 :]]
    return [None, -1, 0, 1, 2**70, 0.5, float("nan"), "x", "", [], {}, [1], True, 1e308, -2][int(rng.integers(15))]


def test_a_scrambled_meta_never_raises_anything_else(tmp_path: Path) -> None:
    path = saved(tmp_path, rescale(rich()))
    arrays = arrays_of(path)
    meta = json.loads(str(arrays["meta"]))
    rng = np.random.default_rng(2)
    found = set()
    for _ in range(150):
        arrays["meta"] = np.asarray(json.dumps(scrambled(meta, rng)))
        np.savez(path, **arrays)
        found.add(survives(path))
    assert found <= {"loaded", "refused"}
