"""Changed reports, journals, configurations and files of numbers, and what their readers must not say of them."""

from __future__ import annotations

import copy
import json
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from typer.testing import CliRunner

from idl_audit.cli.app import app
from idl_audit.report.json_text import to_json
from tests.shared import mutations, proof_mutations
from tests.shared.gate_reports import audited
from tests.shared.mutated_case import Case
from tests.shared.proof_sources import evaluated, layered

ORDER = ("certified", "unknown", "falsified", "clean_wrong")
"""Verdicts, the best first."""
EPS = 2 / 255


def _network(folder: Path) -> tuple[Path, Path]:
    """Write a small model, and samples with their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    model, data = layered(folder / "model.npz", (6, 6), 3), folder / "data.npz"
    inputs = np.random.default_rng(0).uniform(-1, 1, (4, 2))
    np.savez(data, inputs=inputs, labels=evaluated(model)(inputs).argmax(axis=1))
    return model, data


# ---- reports ---------------------------------------------------------------------------------------------------------


def bent(document: dict[str, Any], rng: np.random.Generator) -> tuple[str, str]:
    """Return (name, text) of a JSON document that was changed in one place or two."""
    if rng.random() < 0.1:
        return "bent_text", proof_mutations.bent_text(document, rng)
    mutant = mutations.Mutant({}, copy.deepcopy(document), rng)
    names = []
    while not names or rng.random() < 0.3:
        change = proof_mutations.OF_META[rng.integers(len(proof_mutations.OF_META))]
        if change(mutant) is not None:
            names.append(change.__name__)
    return " and ".join(names), json.dumps(mutant.meta)


def _counts(text: str) -> tuple[int, int]:
    """Return how many samples of a report are certified at 2/255, and how many there are, counted one by one."""
    samples = json.loads(text)["samples"]
    verdicts = [result["verdict"] for one in samples for result in one["results"] if result["eps"] == EPS]
    return verdicts.count("certified"), len(verdicts)


def _verdicts(text: str) -> dict[tuple[int, float], str]:
    samples = json.loads(text)["samples"]
    return {(one["index"], result["eps"]): result["verdict"] for one in samples for result in one["results"]}


def reports(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    """Yield changed reports, read by gate, by gate as a baseline, by diff and by report."""
    folder.mkdir(parents=True, exist_ok=True)
    good, path, out = folder / "good.json", folder / "changed.json", folder / "out"
    text = to_json(audited({"2/255": "cccccccfuw", "1/255": "ccccccccuw"}))
    good.write_text(text)
    document = json.loads(text)

    def passes(code: int, _: str) -> str:
        k, n = _counts(path.read_text()) if code == 0 else (1, 1)
        return "" if k >= 0.7 * n and n else f"the gate passes with {k} of {n}"

    def drops(code: int, _: str) -> str:
        (k, n), (was_k, was_n) = (_counts(text), _counts(path.read_text())) if code == 0 else ((1, 1), (1, 1))
        return "" if k * was_n >= was_k * n else f"no drop is seen from {was_k} of {was_n} to {k} of {n}"

    def worse(code: int, _: str) -> str:
        before, after = (_verdicts(text), _verdicts(path.read_text())) if code == 0 else ({}, {})
        lost = [
            key for key, verdict in before.items() if ORDER.index(after.get(key, "clean_wrong")) > ORDER.index(verdict)
        ]
        return f"nothing got worse, it says, and {lost} did" if lost else ""

    rule = "certified_accuracy@2/255 >= 0.7"
    commands: list[tuple[list[str], Callable[[int, str], str]]] = [
        (["gate", str(path), "--require", rule, "-f", "json"], passes),
        (["gate", str(good), "--require", "drop <= 0", "--baseline", str(path), "-q"], drops),
        (["diff", str(good), str(path), "--exit-code"], worse),
        *((["report", str(path), "-f", form, "-o", str(out)], lambda *_: "") for form in ("html", "markdown", "junit")),
        (["report", str(path), "-f", "github"], lambda *_: ""),
    ]
    while True:
        name, changed = bent(document, rng)
        content = changed.encode("utf-8", "surrogatepass")
        path.write_bytes(mutations.damage_bytes(content, rng) if rng.random() < 0.05 else content)
        out.unlink(missing_ok=True)
        args, wrong = commands[rng.integers(len(commands))]
        yield Case(f"{args[0]}: {name}", args, path, wrong)


def journals(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    """Yield changed journals of a run that goes on from them."""
    model, data = _network(folder)
    out = folder / "r.json"
    path = folder / "r.json.journal"
    args = ["certify", str(model), "-d", str(data), "-e", "0.05", "-o", str(out), "-q"]
    with mock.patch("idl_audit.cli.journaled.drop_journal"):
        assert CliRunner().invoke(app, args).exit_code == 0
    lines = path.read_text().splitlines()
    while True:
        place = int(rng.integers(len(lines)))
        name, changed = bent(json.loads(lines[place]), rng)
        texts = [*lines[:place], changed, *lines[place + 1 :]]
        if rng.random() < 0.2:
            name, texts = "lines twice, in another order, or left out", [lines[0], *rng.choice(lines[1:], 4).tolist()]
        content = ("\n".join(texts) + "\n").encode("utf-8", "surrogatepass")
        path.write_bytes(mutations.damage_bytes(content, rng) if rng.random() < 0.1 else content)
        out.unlink(missing_ok=True)
        yield Case(f"resume: {name}", [*args, "--resume"], path)


# ---- configurations --------------------------------------------------------------------------------------------------

WORDS = (
    "true", "-1", "0", "1", "3", "1e3", "nan", "inf", "-inf", "0.05", "'x'", '""', "[]", "[[]]", "[0.1, 'a']", "{}",
    "{a = 1}", "1979-05-27", "0x10", "9" * 400, "9223372036854775808", "'0.01,0.02'", "'0:0.1:3'", "'1e-400'",
    "'\\u0000'", "[0.05, 0.05]", "'../../data.npz'", "'" + "y" * 3000 + "'", "[" * 300 + "]" * 300,
)  # fmt: skip


def configurations(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    """Yield changed configurations of `run`."""
    model, data = _network(folder)
    path = folder / "audit.toml"
    lines = ["[defaults]", f"model = '{model}'", f"data = '{data}'", "eps = [0.05]", "limit = 2", "bounds = '-2,2'"]
    lines += [
        "seed = 1",
        "[certify]",
        "method = 'interval,linear'",
        "[sensitivity]",
        "top = 2",
        "[run]",
        "steps = 'certify'",
    ]
    lines += ["[gate]", "require = 'certified_accuracy@0.05 >= 0'", "warn = ['clean_accuracy >= 0.1']"]

    def wrong(code: int, out: str) -> str:
        if code != 0:
            return ""
        told, given = json.loads(out), tomllib.loads(path.read_text("utf-8"))
        eps = given["defaults"]["eps"]
        radii = [point["value"] for point in told["threat_model"]["eps"]] if told["threat_model"] else None
        if radii is not None and isinstance(eps, list) and sorted(map(float, eps)) != sorted(radii):
            return f"eps is {eps}, and the report has {radii}"
        if told["data"] and told["data"]["n"] > given["defaults"].get("limit", 4):
            return "more samples than the limit"
        return "" if told["status"] == "complete" else "incomplete, and exit code 0"

    while True:
        changed = list(lines)
        names = []
        for _ in range(int(rng.integers(1, 3))):
            place = int(rng.integers(len(changed)))
            name, edit = EDITS[rng.integers(len(EDITS))]
            edit(changed, place, rng)
            names.append(name)
        content = "\n".join(changed).encode("utf-8", "surrogatepass")
        path.write_bytes(mutations.damage_bytes(content, rng) if rng.random() < 0.05 else content)
        yield Case(" and ".join(names), ["run", "--config", str(path), "-f", "json"], path, wrong)


def _set(lines: list[str], place: int, rng: np.random.Generator) -> None:
    key, sign, _ = lines[place].partition(" = ")
    lines[place] = f"{key}{sign}{WORDS[rng.integers(len(WORDS))]}" if sign else f"[{rng.choice(['gate', 'x', 'a.b'])}]"


def _rename(lines: list[str], place: int, rng: np.random.Generator) -> None:
    _, sign, value = lines[place].partition(" = ")
    others = ["eps", "Eps", "sparse", "target", "index", "allow-code-execution", "x", "a.b", "layout", "scale", "std"]
    lines[place] = f"{rng.choice(others)}{sign}{value}" if sign else lines[place].replace("[", "[[").replace("]", "]]")


EDITS: tuple[tuple[str, Callable[[list[str], int, np.random.Generator], object]], ...] = (
    ("another value", _set),
    ("another value", _set),
    ("another key", _rename),
    ("a line twice", lambda lines, place, rng: lines.insert(place, lines[place])),
    ("a line less", lambda lines, place, rng: lines.pop(place)),
    ("other lines", lambda lines, place, rng: rng.shuffle(lines)),
    ("half a line", lambda lines, place, rng: lines.insert(place, lines[place][: len(lines[place]) // 2])),
)


# ---- radii, groups, objectives ---------------------------------------------------------------------------------------

TEXTS = (
    "0.5,1",
    "1\n2",
    "1;2",
    "0,0",
    "nan,1",
    "1,inf",
    "1,-1",
    "1,2,3",
    "",
    ",",
    "a,b",
    "1e400,1",
    "1" * 5000,
    "\x00\x01",
)


def numbers(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    """Yield changed files of radii, of groups and of objectives."""
    model, data = _network(folder)
    asked = [str(model), "-d", str(data), "-e", "0.05", "--limit", "1", "-f", "json"]
    commands = {
        "sigma": (["certify", *asked, "--method", "interval,linear", "--sigma"], 2),
        "groups": (["sensitivity", str(model), "-f", "json", "--groups"], 2),
        "c": (["attack", *asked, "--method", "pgd", "--objective"], 3),
    }
    while True:
        name = str(rng.choice(sorted(commands)))
        args, count = commands[name]
        path = folder / f"{name}.{rng.choice(['npz', 'npy', 'csv'])}"
        kind = _write_numbers(path, name, count, rng)
        yield Case(f"{name}: {kind}", [*args, str(path)], path, _judge_numbers(path, name, count))


def _write_numbers(path: Path, name: str, count: int, rng: np.random.Generator) -> str:
    array = rng.integers(0, 3, count) if name == "groups" else rng.uniform(0.1, 2, count)
    if path.suffix == ".csv":
        text = ",".join(map(str, array.tolist())) if rng.random() < 0.3 else TEXTS[rng.integers(len(TEXTS))]
        content = text.encode()
        path.write_bytes(mutations.damage_bytes(content, rng) if len(content) > 1 and rng.random() < 0.3 else content)
        return "text"
    mutant = mutations.Mutant({name: array}, {"kind": ""}, rng)
    changes = (proof_mutations.set_entry, proof_mutations.other_dtype, proof_mutations.other_shape)
    change = changes[rng.integers(len(changes))]
    change(mutant)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix == ".npy":
            np.save(path, mutant.arrays[name])
        else:
            np.savez_compressed(path, **{name if rng.random() < 0.9 else "x": mutant.arrays[name]})
        if rng.random() < 0.2:
            content = path.read_bytes()
            bend = proof_mutations.bent_archive if path.suffix == ".npz" else mutations.damage_bytes
            path.write_bytes(bend(content, rng))
    return change.__name__


def _judge_numbers(path: Path, name: str, count: int) -> Callable[[int, str], str]:
    def wrong(code: int, _: str) -> str:
        if code != 0:
            return ""
        if path.suffix == ".csv":
            words = path.read_text("utf-8-sig").replace("\n", ",").replace(";", ",").split(",")
            found = np.array([float(word) for word in words if word.strip()]) if name != "groups" else np.array(words)
        else:
            loaded = np.load(path, allow_pickle=False)
            found = np.asarray(loaded[name] if path.suffix == ".npz" else loaded)
        if found.size != count:
            return f"{found.size} numbers, and the model needs {count}"
        usable = name == "groups" or (np.isfinite(found).all() and (name == "c" or (found >= 0).all()))
        return "" if usable else f"numbers that make no sense: {found.tolist()}"

    return wrong
