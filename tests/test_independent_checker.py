"""The independent checker accepts what the tool writes, and no changed proof of a claim that is false.

Of a changed proof that is accepted, the claim must still be true. It is where the model is the same and its box lies in
that of a claim that was proved, with no alternative that was not; else thousands of points of its box are tried.
"""

import io
import itertools
import json
import math
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests import independent_checker
from tests.independent_checker import GRID, Exact
from tests.independent_files import Refused

pytestmark = pytest.mark.filterwarnings("ignore")  # of names that are there twice, of numbers that overflow

SAMPLES = Path(os.environ.get("SAMPLE_MODELS", Path(__file__).resolve().parents[1] / "sample_models"))
MODEL = SAMPLES / "digits_mlp.onnx"
Arrays = dict[str, np.ndarray]
FREE = (20, 27, 36, 43)  # the pixels that move in the property
INTEGERS = (-(2**63), -2, -1, 0, 1, 2, 7, 48, 2**31, 2**62, 2**63 - 1)
FLOATS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e308, -1e308, 1.0, -1.0, 1e18, 0.5, 255.0)


WITH_LEMMAS = (
    "-c",
    "from unittest import mock; from idl_audit.__main__ import main\n"
    "with mock.patch('idl_audit.search.branching.search.Search._begin'): main()",
)
"""The tool without the small trees that would need no lemmas."""


def certify(*arguments: object, model: Path = MODEL, starts: tuple[str, ...] = ("-m", "idl_audit")) -> None:
    """Let the tool write proofs."""
    command = [sys.executable, *starts, "certify", str(model), *map(str, arguments), "-q"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout


def write_property(path: Path, width: float) -> None:
    """Few pixels of the first image move, and its class must stay."""
    data = np.load(MODEL.with_suffix(".npz"))
    image, label = data["inputs"][0].ravel().astype(float), int(data["labels"][0])
    lines = [f"(declare-const X_{i} Real)" for i in range(64)] + [f"(declare-const Y_{i} Real)" for i in range(10)]
    for i, x in enumerate(image.tolist()):
        move = width if i in FREE else 0.0
        lines += [f"(assert (>= X_{i} {max(x - move, 0.0)}))", f"(assert (<= X_{i} {min(x + move, 1.0)}))"]
    rivals = " ".join(f"(and (<= Y_{label} Y_{j}))" for j in range(10) if j != label)
    path.write_text("\n".join([*lines, f"(assert (or {rivals}))"]))


@pytest.fixture(scope="session")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Proofs that the tool writes."""
    folder = tmp_path_factory.mktemp("proofs")
    return make_proofs(folder)


def make_proofs(folder: Path) -> list[Path]:
    """One of a sample with lemmas, planes and split states, one with duals, and one of a property with split inputs."""
    write_property(folder / "few.vnnlib", 0.8)
    samples = ("-d", MODEL.with_suffix(".npz"), "--bounds", "0,1", "--index", "7", "--certificates")
    certify(*samples, folder / "samples", "-e", "0.07", starts=WITH_LEMMAS)
    certify(*samples, folder / "exact", "-e", "0.05", "--method", "exact")
    certify(folder / "few.vnnlib", "--certificates", folder / "property")
    return sorted(folder.glob("*/*.npz"))


def read(path: Path) -> Arrays:
    """All arrays of a proof."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def written(arrays: dict[str, Any]) -> bytes:
    """The bytes of a file with these arrays, which need not be a proof."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


class Claim:
    """What a proof file says: boxes, and rows for each of their alternatives."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        meta = json.loads(str(arrays["meta"]))
        self.about = meta["model"] | {"output_name": None if meta["model"]["output_name"] == OUTPUT else ""}
        if meta["model"]["output_name"] is None:
            self.about["output_name"] = None
        claim, self.parts = meta["claim"], []
        if claim["kind"] == "sample":
            centre, sigma = arrays["centre"], arrays.get("sigma", np.ones(64))
            low, high = claim["clip"] or (-np.inf, np.inf)
            box = np.maximum(centre - claim["eps"] * sigma, low), np.minimum(centre + claim["eps"] * sigma, high)
            rows = [np.eye(10)[claim["label"]] - row for j, row in enumerate(np.eye(10)) if j != claim["label"]]
            self.parts.append((*box, [(row[None], np.zeros(1)) for row in rows]))
        while f"part.{len(self.parts)}.lo" in arrays:
            key, alternatives = f"part.{len(self.parts)}.", []
            while f"{key}alternative.{len(alternatives)}.rows" in arrays:
                name = f"{key}alternative.{len(alternatives)}."
                alternatives.append((arrays[name + "rows"], arrays[name + "offsets"]))
            self.parts.append((arrays[key + "lo"], arrays[key + "hi"], alternatives))

    def follows_from(self, other: "Claim") -> bool:
        """Whether each box lies in one of the other's, and its alternatives are some of that one's."""
        known = [(lo, hi, {(r.tobytes(), o.tobytes()) for r, o in found}) for lo, hi, found in other.parts]
        return self.about == other.about and all(
            any(
                (lo >= a).all() and (hi <= b).all() and {(r.tobytes(), o.tobytes()) for r, o in found} <= rest
                for a, b, rest in known
            )
            for lo, hi, found in self.parts
        )

    def counterexample(self, generator: np.random.Generator) -> bool:
        """Whether points of the boxes, among them corners that gradients lead to, make an alternative hold."""
        units = self.about["preprocessing"]
        mean, std = np.array(units["mean"] or [0.0]), np.array(units["std"] or [1.0])
        boxes = [
            (np.sort([(end * units["scale"] - mean) / std for end in (lo, hi)], axis=0), found)
            for lo, hi, found in self.parts
        ]  # in the network's units
        return any(holds(*box, *alternative, generator) for box, found in boxes for alternative in found)


def layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of the network."""
    initializers = {
        t.name: onnx.numpy_helper.to_array(t).astype(float) for t in onnx.load(str(MODEL)).graph.initializer
    }
    return [
        (initializers[n.input[1]], initializers[n.input[2]])
        for n in onnx.load(str(MODEL)).graph.node
        if n.op_type == "Gemm"
    ]


def outputs(u: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The outputs of some inputs, and which states are active."""
    active = []
    for i, (weight, bias) in enumerate(LAYERS):
        u = u @ weight.T + bias
        if i < len(LAYERS) - 1:
            active.append(u > 0)
            u = u * active[-1]
    return u, active


def holds(
    lo: np.ndarray, hi: np.ndarray, rows: np.ndarray, offsets: np.ndarray, generator: np.random.Generator
) -> bool:
    """Whether an alternative holds somewhere, as far as points show: rows y + offsets <= 0 in every row."""
    u = lo + (hi - lo) * generator.random((400, len(lo)))
    u[:100] = np.where(generator.random((100, len(lo))) < 0.5, lo, hi)
    for _ in range(8):
        y, active = outputs(u)
        values = y @ rows.T + offsets
        if (values < -1e-9).all(axis=1).any():
            return True
        slope = rows[values.argmax(axis=1)] @ LAYERS[-1][0]
        for (weight, _), some in zip(reversed(LAYERS[:-1]), reversed(active), strict=True):
            slope = (slope * some) @ weight
        u = np.where(slope > 0, lo, np.where(slope < 0, hi, u))
    return False


LAYERS = layers() if MODEL.exists() else []
OUTPUT = onnx.load(str(MODEL)).graph.output[0].name if MODEL.exists() else ""


def change_entry(arrays: dict[str, Any], name: str, r: random.Random) -> None:
    """Another number somewhere in an array."""
    array = arrays[name] = np.array(arrays[name])
    if not array.size:
        return
    flat, i = array.reshape(-1), r.randrange(array.size)
    if array.dtype.kind == "f":
        old = float(flat[i])
        new = r.choice([*FLOATS, old * 1.0001, old * 3, -old, old + r.gauss(0, 0.1), old - 1e-9, r.gauss(0, 1)])
        with np.errstate(all="ignore"):
            flat[i] = new
    else:
        limits = np.iinfo(array.dtype)
        new = r.choice([*INTEGERS, int(flat[i]) + 1, int(flat[i]) - 1, int(r.choice(flat.tolist())), r.randrange(200)])
        flat[i] = min(max(new, limits.min), limits.max)


def change_array(arrays: dict[str, Any], name: str, r: random.Random) -> None:
    """An array as a whole: other order, type, shape, place or values."""
    array, seed = arrays[name], np.random.default_rng(r.randrange(2**32))
    kinds: list[Callable[[], Any]] = [
        lambda: seed.permutation(array),
        lambda: array[::-1].copy(),
        lambda: array[:-1],
        lambda: array[1:],
        lambda: np.concatenate([array, array[-1:]]),
        lambda: array[None],
        lambda: array.astype(">f8"),
        lambda: array.astype(np.int32),
        lambda: array.astype(np.float32),
        lambda: array.astype(complex),
        lambda: array.astype(object),
        lambda: np.zeros_like(array),
        lambda: np.asfortranarray(array),
        lambda: (array + seed.normal(size=array.shape)).astype(array.dtype),
        lambda: (array * 2).astype(array.dtype),
        lambda: seed.integers(0, 100, array.shape).astype(array.dtype),
        lambda: array.astype(bool),
    ]
    with np.errstate(all="ignore"):
        arrays[name] = r.choice(kinds)()


def change_names(arrays: dict[str, Any], name: str, r: random.Random) -> None:
    """An array is lost, has another name, or takes the place of another."""
    kind, other = r.randrange(4), r.choice(list(arrays))
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name.replace(".0.", ".1.", 1)] = arrays.pop(name)
    elif kind == 2:
        arrays[name], arrays[other] = arrays[other], arrays[name]
    else:
        arrays[other + r.choice(["x", ".", "0", ""])] = arrays[name]


def change_claim(arrays: dict[str, Any], name: str, r: random.Random) -> None:
    """The claim or the model in meta; or the box."""
    meta = json.loads(str(arrays["meta"]))
    claim, model = meta["claim"], meta["model"]
    if claim["kind"] == "sample":
        claim[r.choice(["eps", "eps", "label", "clip", "cardinality", "index", "kind", "more"])] = r.choice(
            [
                claim["eps"] * r.uniform(0.9, 1.5),
                claim["eps"] * 1.1,
                0.5,
                0,
                -1,
                1e18,
                1e30,
                r.randrange(10),
                r.randrange(10),
                [0.0, r.uniform(0.5, 2)],
                [-1, 2],
                None,
                3,
                64,
                float("nan"),
                float("inf"),
                "sample",
                True,
                10**400,
                [1, 0],
            ]
        )
        moved = r.choice(["centre", "centre", "sigma"])
        if r.random() < 0.3:
            arrays[moved] = np.clip(
                arrays["centre"] + np.random.default_rng(r.randrange(99)).normal(size=64) * 0.1, 0, 1
            )
    else:
        end, sign = r.choice([("lo", -1), ("hi", 1)])
        some = np.array([r.choice(FREE)]) if r.random() < 0.7 else np.arange(64)
        moved_box = arrays[f"part.0.{end}"] = arrays[f"part.0.{end}"].copy()
        moved_box[some] += sign * r.choice([1e-9, 1e-3, 0.02, 0.1, 0.4, -0.05])
    if r.random() < 0.2:
        model[r.choice(["sha256", "output_name", "preprocessing", "threshold"])] = r.choice(
            [
                "0" * 64,
                None,
                {"scale": 0.5, "mean": [], "std": []},
                {"scale": 1.0, "mean": [0.1], "std": [0]},
                0.0,
                "output",
            ]
        )
    arrays["meta"] = np.array(json.dumps(meta))


def change_tree(arrays: dict[str, Any], name: str, r: random.Random) -> None:
    """A tree: leaves change places, a subtree is cut off or hangs elsewhere, or its cut is another."""
    trees = [n.removesuffix("variable") for n in arrays if n.endswith(".variable")]
    base = max((r.choice(trees) for _ in range(3)), key=lambda n: arrays[n + "variable"].size)
    variable, child, cut = (arrays[base + n].copy() for n in ("variable", "child", "cut"))
    inner = np.flatnonzero(variable >= 0)
    kind = r.randrange(5)
    if kind == 0 and len(inner):
        node = r.choice(inner.tolist())
        variable[node], child[node] = -1, 0
    elif kind == 1 and len(inner):
        cut[r.choice(inner.tolist())] += r.choice([1e-12, 0.01, -0.01, 1.0, -1.0, 1e300, r.gauss(0, 0.2)])
    elif kind == 2 and len(inner) > 1:
        a, b = r.sample(inner.tolist(), 2)
        child[a], child[b] = child[b], child[a]
    elif kind == 3 and len(inner):
        variable[r.choice(inner.tolist())] = r.randrange(-2, 150)
    else:
        choices = [
            n for n in arrays if n.startswith(base) and n.endswith((".values", ".shares")) and len(arrays[n]) > 1
        ]
        if choices:
            values = arrays[picked] = arrays[picked := r.choice(choices)].copy()
            a, b = r.sample(range(len(values)), 2)
            values[[a, b]] = values[[b, a]]
    arrays.update({base + "variable": variable, base + "child": child, base + "cut": cut})
    if kind == 0 and len(inner) and r.random() < 0.8:
        drop_orphans(arrays, base)


def drop_orphans(arrays: dict[str, Any], base: str) -> None:
    """Number the nodes that are left anew, so that only the choices of lost leaves are too many."""
    variable, child, cut, roots = (arrays[base + n] for n in ("variable", "child", "cut", "roots"))
    kept, stack = [], list(roots)
    while stack:
        node = stack.pop()
        if node in kept:
            raise ValueError("a cycle")  # of a tree that was changed before
        kept.append(node)
        stack += [child[node], child[node] + 1] if variable[node] >= 0 else []
    kept.sort()
    number = {int(n): i for i, n in enumerate(kept)}
    arrays[base + "child"] = np.array([number[int(child[n])] if variable[n] >= 0 else 0 for n in kept])
    arrays.update({base + "variable": variable[kept], base + "cut": cut[kept]})
    arrays[base + "roots"] = np.array([number[int(n)] for n in roots])
    leaves = np.cumsum(variable == -1) - 1
    lost = {int(leaves[n]): i for i, n in enumerate(n for n in kept if variable[n] == -1)}
    for name in [n for n in arrays if n.startswith(base) and n.endswith(".leaves")]:
        some = [i for i, leaf in enumerate(arrays[name].tolist()) if leaf in lost]
        key = next(name[:-6] + end for end in ("values", "shares") if name[:-6] + end in arrays)
        arrays[name], arrays[key] = np.array([lost[int(arrays[name][i])] for i in some], np.int64), arrays[key][some]


def change_choice(arrays: dict[str, Any], name: str, r: random.Random) -> None:
    """What is chosen for one block is of another kind, or for another block, and cut or repeated to fit it."""
    found = [n.removesuffix("leaves") for n in arrays if n.endswith(".leaves")]
    if not found:
        return
    old = r.choice(found)
    base, kind, block = old.rstrip(".").rsplit(".", 2)
    to = int(block) if r.random() < 0.3 else 1 - int(block)
    kind = r.choice([kind, kind, "slopes", "multipliers", "duals"]) if kind != "planes" else kind
    moved = {end: arrays.pop(old + end) for end in ("leaves", "values", "states", "shares") if old + end in arrays}
    if "values" in moved:
        part = ".".join(base.split(".")[:2])
        reduced = "stage.0." not in base
        width = len(arrays[f"{part}.kept.{to}"]) if reduced and f"{part}.kept.{to}" in arrays else (32, 48)[to]
        values = moved["values"]
        moved["values"] = (np.resize(values, (len(values), width)) * r.choice([1, 1, 3, -1, 1e30])).astype(np.float32)
    else:
        moved["states"] = np.arange(len(moved["states"]))
        moved["shares"] = (
            np.random.default_rng(r.randrange(99)).integers(0, 256, moved["shares"].shape).astype(np.uint8)
        )
    arrays.update({f"{base}.{kind}.{to}.{end}": value for end, value in moved.items()})


def change_bytes(data: bytes, r: random.Random) -> bytes:
    """The file itself: other bytes, a part of it, or more than it should hold."""
    kind = r.randrange(4)
    if kind == 0:
        return data[: r.randrange(len(data))]
    if kind == 1:
        changed = bytearray(data)
        for _ in range(r.randrange(1, 5)):
            changed[r.randrange(len(data))] = r.randrange(256)
        return bytes(changed)
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        name = archive.namelist()[0] if kind == 2 else r.choice(["more.npy", "../meta.npy", "x", "part.0.kept.9.npy"])
        header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }" % r.choice(
            [3, 10**12, -1]
        )
        archive.writestr(name, header.ljust(127) + b"\n" + bytes(r.choice([24, 10**6])))
    return stream.getvalue()


CHANGES = [
    change_entry,
    change_entry,
    change_entry,
    change_array,
    change_names,
    change_claim,
    change_claim,
    change_tree,
    change_tree,
    change_choice,
]


def mutant(base: Arrays, r: random.Random) -> bytes:
    """The bytes of a proof file after one to three changes."""
    arrays: dict[str, Any] = dict(base)
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        name = r.choice([n for n in arrays if n != "meta"])
        try:
            r.choice(CHANGES)(arrays, name, r)
        except (ValueError, IndexError, TypeError, KeyError, OverflowError, AttributeError):
            continue  # a change of an array that was changed before
    data = written(arrays)
    return change_bytes(data, r) if r.random() < 0.08 else data


def fuzz(proofs: list[Path], folder: Path, count: int, seed: int) -> dict[str, int]:
    """Check so many changed proofs; of those that are accepted, how many claim what was proved or less."""
    r, generator = random.Random(seed), np.random.default_rng(seed)
    bases = [(read(path), Claim(read(path))) for path in proofs]
    told = {"refused": 0, "implied": 0, "searched": 0}
    for n in range(count):
        base, known = bases[n % len(bases)]
        path = folder / "mutant.npz"
        path.write_bytes(mutant(base, r))
        try:
            independent_checker.check(MODEL, path)
        except Refused:
            told["refused"] += 1
            continue
        with np.load(path) as arrays:
            claim = Claim(arrays)
        if claim.follows_from(known):
            told["implied"] += 1
            continue
        told["searched"] += 1
        (folder / f"searched-{seed}-{n}.npz").write_bytes(path.read_bytes())
        assert {**claim.about, "preprocessing": 0} == {**known.about, "preprocessing": 0}, f"mutant {n} of seed {seed}"
        assert not claim.counterexample(generator), f"mutant {n} of seed {seed}: a false claim was accepted"
    return told


def test_accepts_what_the_tool_writes(proofs: list[Path]) -> None:
    """Every proof, and its claim survives an attack."""
    names = {name for path in proofs for name in read(path)}
    assert len(proofs) == 3
    assert all(any(kind in n for n in names) for kind in (".lemma.", ".kept.", ".planes.", ".slopes.", ".duals."))
    splits = [read(path)["part.0.goals.0.variable"] for path in proofs]
    assert any(((v >= 0) & (v < 64)).any() for v in splits)
    assert any((v >= 64).any() for v in splits)
    for path in proofs:
        assert independent_checker.check(MODEL, path)
        assert not Claim(read(path)).counterexample(np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "index", "eps"), [("digits_conv", 3, 0.04), ("digits_resnet", 0, 0.02)])
def test_accepts_proofs_of_other_networks(tmp_path: Path, name: str, index: int, eps: float) -> None:
    """Maxima with sides of equal length, means, sums; the proof of a larger radius does not hold."""
    model = SAMPLES / f"{name}.onnx"
    samples = ("-d", model.with_suffix(".npz"), "--bounds", "0,1", "--index", index, "-e", eps)
    certify(*samples, "--certificates", tmp_path / "proofs", model=model)
    (path,) = (tmp_path / "proofs").glob("*.npz")
    assert independent_checker.check(model, path)
    with pytest.raises(Refused, match="closed"):
        independent_checker.check(model, with_meta(path, tmp_path, "claim", "eps", 0.2))


@pytest.mark.parametrize(
    ("where", "key", "value", "why"),
    [
        ("claim", "cardinality", 3, "U_card"),
        ("model", "threshold", 0.5, "thresholds"),
        ("model", "sha256", "0" * 64, "another model"),
        ("claim", "kind", "sensitivity", "claims of kind sensitivity"),
        ("claim", "label", -1, "claim"),
        ("claim", "eps", 0.4, "closed"),
        ("claim", "eps", float("nan"), "claim"),
        ("claim", "clip", [0.0, float("nan")], "ValueError"),
        ("model", "preprocessing", {"scale": 1e120, "mean": [], "std": []}, "closed"),
        ("claim", "clip", "01", "no list of numbers"),
        ("claim", "eps", True, "no list of numbers"),
        ("model", "preprocessing", {"scale": 1.0, "mean": {"0": 0.0}, "std": []}, "no list of numbers"),
        ("model", "preprocessing", {"scale": "1", "mean": [], "std": []}, "no list of numbers"),
    ],
)
def test_refuses_by_name(proofs: list[Path], tmp_path: Path, where: str, key: str, value: object, why: str) -> None:
    """What is not supported, and what does not hold."""
    changed = with_meta(next(path for path in proofs if "samples" in path.parts), tmp_path, where, key, value)
    with pytest.raises(Refused, match=why):
        independent_checker.check(MODEL, changed)


def with_meta(path: Path, folder: Path, where: str, key: str, value: object) -> Path:
    """A copy of a proof whose meta says something else."""
    arrays = read(path)
    meta = json.loads(str(arrays["meta"]))
    meta[where][key] = value
    (folder / "changed.npz").write_bytes(written({**arrays, "meta": np.array(json.dumps(meta))}))
    return folder / "changed.npz"


def test_finds_counterexamples(proofs: list[Path]) -> None:
    """The search by which accepted claims are judged finds what is false."""
    arrays = read(next(path for path in proofs if "samples" in path.parts))
    meta = json.loads(str(arrays["meta"]))
    meta["claim"]["eps"] = 0.4
    assert Claim({**arrays, "meta": np.array(json.dumps(meta))}).counterexample(np.random.default_rng(0))


def test_refuses_changed_proofs(proofs: list[Path], tmp_path: Path) -> None:
    """A hundred changes."""
    told = fuzz(proofs, tmp_path, 100, 0)
    assert told["refused"] > 40


@pytest.mark.slow
def test_refuses_many_changed_proofs(proofs: list[Path], tmp_path: Path) -> None:
    """Three hundred changes; `python -m tests.test_independent_checker 100000` runs more."""
    assert fuzz(proofs, tmp_path, 300, 1)["refused"] > 120


def test_planes_belong_to_the_oldest_block(proofs: list[Path], tmp_path: Path) -> None:
    """A plane is over the inputs alone."""
    arrays = read(next(path for path in proofs if "samples" in path.parts))
    for name in [n for n in arrays if ".planes.1." in n]:
        array = arrays.pop(name)
        arrays[name.replace(".planes.1.", ".planes.0.")] = np.arange(len(array)) if name.endswith("states") else array
    (tmp_path / "planes.npz").write_bytes(written(arrays))
    with pytest.raises(Refused, match="planes of a block"):
        independent_checker.check(MODEL, tmp_path / "planes.npz")


def integers(r: random.Random, bits: int, *shape: int) -> np.ndarray:
    """Integers of all lengths up to some bits."""
    numbers = [r.randrange(-(2**n) + 1, 2**n) for n in (r.randrange(bits + 1) for _ in range(math.prod(shape)))]
    return np.array(numbers, object).reshape(shape)


@pytest.mark.parametrize("seed", range(20))
def test_arithmetic_is_exact(seed: int) -> None:
    """Products, sums and differences against fractions."""
    r = random.Random(seed)
    a = Exact(integers(r, r.choice([30, 58, 200]), 3, 30), r.randrange(90))
    b = Exact(integers(r, r.choice([30, 58, 200]), 30, 5), r.randrange(90))
    c = Exact(integers(r, 58, 3, 5), r.randrange(120))
    product = scaled(a.ints @ b.ints, -a.exp - b.exp)
    for made, true in ((a @ b, product), (c + a @ b, scaled(c.ints, -c.exp) + product), (c - c, 0 * product)):
        assert (scaled(made.ints, -made.exp) == true).all()
    assert (abs(a.floats() - scaled(a.ints, -a.exp).astype(float)) <= abs(a.floats()) * 2.0**-52).all()


@pytest.mark.parametrize("below", [0, -1, 1])
def test_states_have_the_least_value(below: int) -> None:
    """The least of v phi(z) - lam z is that of the ends and of 0."""
    r = random.Random(below)
    for _ in range(300):
        v, lam = (Exact(integers(r, 57, 1, 1), r.randrange(60)) for _ in range(2))
        lo, hi = sorted(integers(r, 56, 2).tolist())
        places = [lo, hi, *([0] if lo < 0 < hi else [])]
        factor, slope = (scaled(x.ints, -x.exp)[0, 0] for x in (v, lam))
        true = min(factor * (z if z >= 0 else below * z) - slope * z for z in places)
        found = independent_checker.least(v.times(below) - lam, v - lam, np.array([[lo], [-hi]], object))
        assert found.tolist() == [math.floor(true)]


@pytest.mark.parametrize("numbers", [[1.0, 1e-300, -5e-324, 0.0], [0.1, -(2.0**-60)], [0.0, -0.0], [3.0, 1e300]])
def test_floats_are_as_they_are(numbers: list[float]) -> None:
    """However small or large a number is."""
    made = Exact.of(np.array(numbers))
    assert scaled(made.ints, -made.exp).tolist() == [Fraction(number) for number in numbers]
    for other in (np.nan, np.inf):
        with pytest.raises((ValueError, OverflowError)):
            Exact.of(np.array([other]))


def scaled(ints: np.ndarray, up: int) -> np.ndarray:
    """Integers times a power of two, as fractions."""
    return np.frompyfunc(lambda n: int(n) * Fraction(2) ** up, 1, 1)(ints)


def bounds_of(path: Path) -> tuple[Any, Any]:
    """The part of an accepted proof, and the bounds of states after its last stage."""
    seen: list[tuple[Any, Any]] = []
    stage = independent_checker.Part.stage

    def spy(self: Any, name: str, b: Any, kept: Any) -> None:
        stage(self, name, b, kept)
        seen.append((self, list(b)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(independent_checker.Part, "stage", spy)
        independent_checker.check(MODEL, path)
    return seen[-1]


@pytest.fixture(scope="module")
def bounded(proofs: list[Path]) -> list[tuple[Any, Any]]:
    """The parts of the proofs, and their bounds."""
    return [bounds_of(path) for path in proofs]


def corners(part: Any, count: int) -> np.ndarray:
    """Corners of the box of a part."""
    lo, hi = Exact(part.box[1], GRID).floats() * [[1], [-1]]
    return lo + (hi - lo) * np.random.default_rng(0).integers(0, 2, (count, 64))


def test_bounds_hold(bounded: list[tuple[Any, Any]]) -> None:
    """Every bound of a state that an accepted proof leads to holds at points of the box."""
    for part, bounds in bounded:
        u = corners(part, 20000)
        for t, (weight, bias) in enumerate(LAYERS[:-1], 2):
            z = u @ weight.T + bias
            for bound, sign in zip(bounds[t], (1, -1), strict=True):
                assert (sign * z >= Exact(bound, GRID).floats() - 1e-9).all()
            u = np.maximum(z, 0)


def test_states_may_be_counted_from_the_end(proofs: list[Path], tmp_path: Path) -> None:
    """Numbers below 0 in `kept` are of the same states: a lemma about them gives the same bounds."""
    arrays = next(some for some in map(read, proofs) if "part.0.kept.0" in some and "part.0.stage.1.blocks" not in some)
    kept = arrays["part.0.kept.0"]
    g, own = len(kept), "part.0.stage.1.lemma.0."
    arrays |= {"part.0.stage.1.blocks": np.array([0]), own + "states": np.arange(g), own + "signs": np.ones(g, np.int8)}
    arrays |= {own + "roots": np.arange(g), own + "variable": np.full(g, -1), own + "cut": np.zeros(g)}
    arrays[own + "child"] = np.zeros(g, np.int64)
    found = []
    for numbers in (kept, kept - 32):
        (tmp_path / "kept.npz").write_bytes(written({**arrays, "part.0.kept.0": numbers}))
        found.append(bounds_of(tmp_path / "kept.npz")[1])
    assert all((one == other).all() for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_any_choices_are_sound(bounded: list[tuple[Any, Any]], seed: int) -> None:
    """Whatever slopes, multipliers, duals and planes are chosen, bounds of outputs and of their negatives hold."""
    r = np.random.default_rng(seed)
    for part, bounds in bounded:
        y = outputs(corners(part, 20000))[0]
        maps, rows = part.network.full(part.network.output), np.arange(20)
        chosen: dict[tuple[str, int], Any] = {}
        for t, kind in itertools.product((2, 3), ("slopes", "multipliers", "duals")):
            states = np.flatnonzero(r.random(part.network.sizes[t]) < 0.3)
            chosen[kind, t] = states, r.normal(size=len(states)) * 10.0 ** r.integers(-3, 2)
        states = np.flatnonzero(r.random(part.network.sizes[2]) < 0.5)
        chosen["planes", 2] = states, r.integers(0, 256, (len(states), 64))
        for some in ({}, chosen, {("planes", 2): chosen["planes", 2]}):
            found = Exact(part.lower(maps, rows, bounds, "usual", some), GRID).floats()
            least = np.concatenate([y.min(axis=0), -y.max(axis=0)])
            assert (found <= least + 1e-9).all()


if __name__ == "__main__":
    work = Path(sys.argv[2] if len(sys.argv) > 2 else "fuzzing")
    work.mkdir(exist_ok=True)
    files = sorted(work.glob("*/*.npz")) or make_proofs(work)
    for first in range(0, int(sys.argv[1]), 1000):
        print(first, fuzz(files, work, 1000, 1000 + first), flush=True)
