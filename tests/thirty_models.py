"""MODELS: some thirty networks of the kinds that people bring, each with the commands that they would type.

    python -m tests.thirty_models [--out reports/first_afternoon.md]

Each entry makes a file in a folder, as its framework writes it, with samples beside it, and says what is typed and what
must come of it: verdicts, or one sentence. `tests/test_thirty_models.py` asks it of all of them; the script writes
what each is told, and how long it takes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import nn

from benchmarks.import_table import silently
from benchmarks.measuring import machine, seconds_of_children
from benchmarks.torch_kinds import SqueezeExcite, TwoInputs
from benchmarks.torch_kinds import made as made_of_kind
from tests.shared.quantised import quantised

ROOT: Final = Path(__file__).resolve().parents[1]
FRAMEWORKS: Final = ROOT / "tests/imports/frameworks"
SAMPLES: Final = 4


@dataclass(frozen=True)
class Typed:
    """A command, and what must come of it."""

    line: str
    """Without `idl-audit`; files are in the folder that the model was made in."""
    code: int = 0
    words: str = ""
    """What is printed holds them, whatever the line breaks."""


@dataclass(frozen=True)
class Brought:
    """A model that somebody brings."""

    what: str
    make: Callable[[Path], None]
    typed: tuple[Typed, ...]


# --- making files -----------------------------------------------------------------------------------------------------


def by_class(scores: Any) -> torch.Tensor:
    """Label by the largest of all scores."""
    return scores.reshape(len(scores), -1).argmax(1)


def by_sign(scores: Any) -> torch.Tensor:
    """Label by which shares are above 1/2; of one output, one label a sample."""
    return (scores > 0.5).int().squeeze(1)


def written(
    folder: Path,
    module: nn.Module,
    *rows: torch.Tensor,
    label: Callable[[Any], torch.Tensor] = by_class,
    dynamo: bool = False,
    **more: Any,
) -> None:
    """Export a module as m.onnx, and write rows of its first argument as d.npz, labelled as the module sees them."""
    with silently():
        example = tuple(torch.zeros_like(one[:1]) for one in rows)
        torch.onnx.export(module.eval(), example, str(folder / "m.onnx"), dynamo=dynamo, **more)
    with torch.no_grad():
        labels = label(module(*rows))
    np.savez(folder / "d.npz", inputs=rows[0].numpy(), labels=labels.numpy())


def of_torch(make: Callable[[], nn.Module], *shape: int, **more: Any) -> Callable[[Path], None]:
    """Return what makes and writes a module of one input of a shape; `more` as in `written`."""

    def made(folder: Path) -> None:
        torch.manual_seed(0)
        module = make()
        written(folder, module, torch.rand(SAMPLES, *shape), **more)

    return made


def mlp(last: nn.Module | None = None, out: int = 4) -> nn.Module:
    """Return a small network of four inputs."""
    layers = [nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, out)]
    return nn.Sequential(*layers, *([] if last is None else [last]))


def cnn() -> nn.Module:
    """Return a small convolutional network with batch norm and pooling."""
    block = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*block, nn.Flatten(), nn.Linear(64, 10))


class Residual(nn.Module):
    """A residual block between two convolutions."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.first, self.inner = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        h = torch.relu(self.first(x))
        return self.last(torch.relu(h + self.inner(h)).mean(dim=(2, 3)))


class Preprocessed(nn.Module):
    """Bytes with channels last, normalised within the network."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        return self.inner((x.permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.225)


class Recurrent(nn.Module):
    """The last state of an LSTM, classified."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.cell, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        return self.last(self.cell(x)[0][:, -1])


class TwoHeads(nn.Module):
    """Classes, and features beside them."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.inner, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply it."""
        h = torch.relu(self.inner(x))
        return self.last(h), h


def mobile() -> nn.Module:
    """Return a depthwise block with hard swish and squeeze-and-excitation."""
    block = [nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4), nn.Hardswish(), SqueezeExcite()]
    return nn.Sequential(nn.Conv2d(1, 4, 1), *block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def pixels() -> nn.Module:
    """Return a network with a class for each pixel."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))


def of_half(folder: Path) -> None:
    """Write a network of float16 numbers."""
    torch.manual_seed(0)
    written(folder, mlp().half(), torch.rand(SAMPLES, 4).half())


def of_bytes(folder: Path) -> None:
    """Write a network that reads bytes with channels last."""
    torch.manual_seed(0)
    written(folder, Preprocessed(), torch.randint(0, 256, (SAMPLES, 6, 6, 3), dtype=torch.uint8))


def of_int8(folder: Path) -> None:
    """Write a statically quantised network."""
    of_torch(cnn, 1, 8, 8)(folder)
    with np.load(folder / "d.npz") as file:
        inputs = file["inputs"]
    with silently():
        quantised(folder / "m.onnx", folder / "q.onnx", inputs)


def of_dynamic_int8(folder: Path) -> None:
    """Write a dynamically quantised network."""
    from onnxruntime.quantization import quantize_dynamic

    of_torch(mlp, 4)(folder)
    with silently():
        quantize_dynamic(str(folder / "m.onnx"), str(folder / "q.onnx"))


def of_external_data(folder: Path) -> None:
    """Write a network whose weights are in a file beside it."""
    of_torch(mlp, 4)(folder)
    model = onnx.load(str(folder / "m.onnx"))
    onnx.save(model, str(folder / "m.onnx"), save_as_external_data=True, location="m.data", size_threshold=0)


def of_two_inputs(folder: Path) -> None:
    """Write a network of two inputs, and a file of what the second one is."""
    torch.manual_seed(0)
    context = torch.rand(1, 3)
    rows = torch.rand(SAMPLES, 8), context.expand(SAMPLES, 3)
    written(folder, TwoInputs(), *rows, input_names=["image", "context"])
    np.save(folder / "context.npy", context.numpy())


class Words(nn.Module):
    """Numbers of words, embedded and averaged."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.table, self.last = nn.Embedding(20, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        return self.last(torch.relu(self.table(x).mean(dim=1)))


def of_tokens(folder: Path) -> None:
    """Write a network that reads numbers of words."""
    torch.manual_seed(0)
    written(folder, Words(), torch.randint(0, 20, (SAMPLES, 6)))


def of_kind(kind: str) -> Callable[[Path], None]:
    """Return what writes a module of `benchmarks.torch_kinds`."""

    def made(folder: Path) -> None:
        module, ((_, *shape), *_) = made_of_kind(kind)
        of_torch(lambda: module, *shape)(folder)

    return made


def of_module(folder: Path) -> None:
    """Pickle a module, and write its state, its program and its script."""
    torch.manual_seed(0)
    module = mlp().eval()
    written(folder, module, torch.rand(SAMPLES, 4))
    torch.save(module, folder / "m.pt")
    torch.save(module.state_dict(), folder / "state.pt")
    (folder / "net.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), "
        "nn.ReLU(), nn.Linear(6, 4))\n"
    )
    with silently():
        torch.jit.save(torch.jit.trace(module, torch.zeros(1, 4)), str(folder / "script.pt"))
        torch.export.save(torch.export.export(module, (torch.zeros(1, 4),)), str(folder / "program.pt2"))


def of_sklearn(make: Callable[[], Any], **options: Any) -> Callable[[Path], None]:
    """Return what fits a model of scikit-learn to the irises, and exports it."""

    def made(folder: Path) -> None:
        from skl2onnx import to_onnx
        from sklearn.datasets import load_iris

        x, y = load_iris(return_X_y=True)
        with silently():
            model = make().fit(x.astype(np.float32), y)
            proto = to_onnx(model, x[:1].astype(np.float32), **options)
        (folder / "m.onnx").write_bytes(proto.SerializeToString())
        np.savez(folder / "d.npz", inputs=x[::38].astype(np.float32), labels=y[::38])

    return made


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


def _perceptron() -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    return make_pipeline(MinMaxScaler(), MLPClassifier((6,), max_iter=300, random_state=0))


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(3, max_depth=3, random_state=0)


def _bells() -> Any:
    from sklearn.svm import SVC

    return SVC()


def of_categories(folder: Path) -> None:
    """Write a pipeline whose first column is a category, a number, with what its columns are."""
    from skl2onnx import to_onnx
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(0)
    x = np.hstack([rng.integers(0, 3, (80, 1)), rng.random((80, 2))]).astype(np.float32)
    table = [("one hot", OneHotEncoder(handle_unknown="ignore"), [0]), ("scaled", StandardScaler(), [1, 2])]
    with silently():
        model = make_pipeline(ColumnTransformer(table), LogisticRegression()).fit(x, x[:, 0] + x[:, 1] > 1)
        (folder / "m.onnx").write_bytes(to_onnx(model, x[:1]).SerializeToString())
    np.savez(folder / "d.npz", inputs=x[:SAMPLES], labels=model.predict(x[:SAMPLES]).astype(int))
    kinds = {"room": 'kind = "fixed"', "area": "range = [0, 1]", "age": "range = [0, 1]"}
    kinds = {name: text if "kind" in text else f'kind = "continuous"\n{text}' for name, text in kinds.items()}
    (folder / "f.toml").write_text("".join(f'[[feature]]\nname = "{n}"\n{text}\n' for n, text in kinds.items()))


def committed(name: str) -> Callable[[Path], None]:
    """Return what copies a file that another framework wrote, with its samples."""

    def made(folder: Path) -> None:
        shutil.copy(FRAMEWORKS / f"{name}.onnx", folder / "m.onnx")
        with np.load(FRAMEWORKS / f"{name}.npz") as file:
            inputs, outputs = file["inputs"][:SAMPLES], file["outputs"][:SAMPLES]
        np.savez(folder / "d.npz", inputs=inputs, labels=outputs.reshape(len(outputs), -1).argmax(1))

    return made


META: Final = '{"schema_version": "1.0", "activation": "relu"}'


def of_loop(folder: Path) -> None:
    """Write an equilibrium model as numpy has it."""
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(6, 6)) * 0.1, rng.normal(size=(6, 4)), rng.normal(size=(3, 6))
    np.savez(folder / "m.npz", A=a, B=b, C=c, D=np.zeros((3, 4)), meta=np.array(META))
    rows = rng.random((SAMPLES, 4)).astype(np.float32)
    x = np.zeros((SAMPLES, 6))
    for _ in range(200):
        x = np.maximum(x @ a.T + rows @ b.T, 0.0)
    np.savez(folder / "d.npz", inputs=rows, labels=(x @ c.T).argmax(1))


def of_other_formats(folder: Path) -> None:
    """Write what is no ONNX file: the beginnings of other formats."""
    of_torch(mlp, 4)(folder)
    (folder / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    (folder / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))


CERTIFY: Final = "certify m.onnx -d d.npz -e 1e-3"
ALL: Final = f"{SAMPLES} of {SAMPLES} "
"""What the sentence of an audit begins with where all samples, or images, are certified."""


def certified(what: str, make: Callable[[Path], None], line: str = CERTIFY, words: str = ALL) -> Brought:
    """Return a model all of whose samples are certified at a small radius."""
    return Brought(what, make, (Typed(line, 0, words),))


def answered(what: str, make: Callable[[Path], None], line: str, words: str, code: int = 0) -> Brought:
    """Return a model of which a command says something else."""
    return Brought(what, make, (Typed(line, code, words),))


MODELS: Final[Mapping[str, Brought]] = MappingProxyType(
    {
        "perceptron": certified("torch, three linear layers, dynamo's exporter", of_torch(mlp, 4, dynamo=True)),
        "convolutions": certified("torch, convolutions, batch norm, pooling", of_torch(cnn, 1, 8, 8)),
        "residual": certified("torch, a residual block", of_torch(Residual, 1, 6, 6)),
        "mobile": certified("torch, depthwise, hard swish, squeeze-and-excitation", of_torch(mobile, 1, 6, 6)),
        "lstm": certified("torch, an LSTM", of_torch(Recurrent, 5, 3)),
        "loop of cells": certified("torch, LSTM cells in a loop", of_kind("LSTM cells in a loop")),
        "transformer": certified("torch, a transformer layer", of_kind("transformer layer")),
        "graph": certified("torch, a graph convolution", of_kind("graph convolution")),
        "softmax last": certified("torch, softmax last", of_torch(lambda: mlp(nn.Softmax(dim=1)), 4)),
        "U-Net": answered("torch, a U-Net", of_kind("U-Net"), CERTIFY, "certified"),
        "segmentation": Brought(
            "torch, a class for each pixel",
            of_torch(pixels, 1, 6, 6, label=lambda scores: scores.argmax(1)),
            (Typed(CERTIFY, 2, "--task segmentation"), Typed(f"{CERTIFY} --task segmentation", 0, "certified")),
        ),
        "regression": answered("torch, a regression", of_torch(lambda: mlp(out=1), 4), f"{CERTIFY} --within 0.1", ALL),
        "multilabel": answered(
            "torch, labels each by itself",
            of_torch(lambda: mlp(nn.Sigmoid()), 4, label=by_sign),
            f"{CERTIFY} --task multilabel",
            ALL,
        ),
        "one logit": certified(
            "torch, one output after a sigmoid", of_torch(lambda: mlp(nn.Sigmoid(), 1), 4, label=by_sign)
        ),
        "two inputs": certified(
            "torch, two inputs, the second held fixed", of_two_inputs, f"{CERTIFY} --fix context=context.npy"
        ),
        "two outputs": Brought(
            "torch, classes and features",
            of_torch(TwoHeads, 4, label=lambda found: found[0].argmax(1), output_names=["classes", "features"]),
            (Typed(CERTIFY, 2, "--output-name"), Typed(f"{CERTIFY} --output-name classes", 0, ALL)),
        ),
        "bytes": certified(
            "torch, bytes, channels last, normalised within", of_bytes, "certify m.onnx -d d.npz -e 1", "3 of 4 "
        ),
        "words": answered("torch, numbers of words", of_tokens, CERTIFY, "tokens", 2),
        "half": certified("torch, float16", of_half, f"{CERTIFY} --arithmetic float16"),
        "external data": certified("torch, weights in a file beside it", of_external_data),
        "int8": answered("onnxruntime, static int8", of_int8, "certify q.onnx -d d.npz -e 1e-4", "certified"),
        "dynamic int8": Brought(
            "onnxruntime, dynamic int8",
            of_dynamic_int8,
            (
                Typed("certify q.onnx -d d.npz -e 1e-3", 2, "DynamicQuantizeLinear"),
                Typed("attack q.onnx -d d.npz -e 1e-3", 0, "attacked"),
            ),
        ),
        "module": Brought(
            "torch, a pickled module, its state, its script, its program",
            of_module,
            (
                Typed("certify m.pt -d d.npz -e 1e-3 --input-shape 1,4", 2, "--allow-code-execution"),
                Typed("certify m.pt -d d.npz -e 1e-3 --input-shape 1,4 --allow-code-execution", 0, ALL),
                Typed("certify state.pt -d d.npz -e 1e-3 --input-shape 1,4", 2, "--arch"),
                Typed("certify script.pt -d d.npz -e 1e-3 --input-shape 1,4", 2, "--allow-code-execution"),
                Typed("certify script.pt -d d.npz -e 1e-3 --input-shape 1,4 --allow-code-execution", 0, ALL),
                Typed("certify program.pt2 -d d.npz -e 1e-3 --allow-code-execution", 0, ALL),
                Typed(
                    "certify state.pt -d d.npz -e 1e-3 --input-shape 1,4 --arch net:make --allow-code-execution", 0, ALL
                ),
            ),
        ),
        "logistic": certified("scikit-learn, a scaler and a logistic regression", of_sklearn(_logistic)),
        "network of tables": certified(
            "scikit-learn, a scaler and a perceptron",
            of_sklearn(_perceptron, options={"zipmap": False}),
            words=f"of {SAMPLES} samples are certified",
        ),
        "forest": Brought(
            "scikit-learn, a random forest",
            of_sklearn(_forest),
            (Typed(CERTIFY, 2, "TreeEnsembleClassifier"), Typed("attack m.onnx -d d.npz -e 0.5", 0, "attacked")),
        ),
        "categories": certified("scikit-learn, categories as numbers", of_categories, f"{CERTIFY} --features f.toml"),
        "support vectors": certified("scikit-learn, an SVC of three classes", of_sklearn(_bells)),
        "keras": certified("Keras 3, convolutions", committed("keras_conv")),
        "keras, recurrent": certified("Keras 3, a recurrent layer", committed("keras_recurrent")),
        "jax": certified("JAX, dense layers", committed("jax_dense")),
        "jax, convolutions": answered("JAX, convolutions", committed("jax_conv"), CERTIFY, "certified"),
        "equilibrium": answered("an equilibrium model, A, B, C, D", of_loop, "certify m.npz -d d.npz -e 1e-3", ALL),
        "other formats": Brought(
            "HDF5 and TensorFlow Lite",
            of_other_formats,
            (
                Typed("certify m.h5 -d d.npz -e 1e-3", 2, "convert it with tf2onnx"),
                Typed("certify m.tflite -d d.npz -e 1e-3", 2, "convert it with tf2onnx"),
            ),
        ),
    }
)
"""Name -> the model."""


# --- the script -------------------------------------------------------------------------------------------------------


def told(typed: Typed, folder: Path) -> tuple[int, str, float]:
    """Run a command as a user does: its exit code, the first sentence that it prints, seconds of the processor."""
    begun = seconds_of_children()
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    found = subprocess.run(
        [sys.executable, "-m", "idl_audit", *shlex.split(typed.line)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = seconds_of_children() - begun
    printed = found.stdout if found.returncode == 0 else found.stderr
    return found.returncode, " ".join(printed.split("\n\n")[0].split()), seconds


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports/first_afternoon.md")
    parser.add_argument("--only", default="", metavar="NAMES", help="models, separated by commas")
    asked = parser.parse_args()
    rows = []
    for name in asked.only.split(",") if asked.only else MODELS:
        with tempfile.TemporaryDirectory() as scratch:
            MODELS[name].make(Path(scratch))
            for typed in MODELS[name].typed:
                code, sentence, seconds = told(typed, Path(scratch))
                row = (MODELS[name].what, f"`{typed.line}`", str(code), sentence.replace("|", "\\|"), f"{seconds:.1f}")
                print(*row, sep=" | ", flush=True)
                rows.append(row)
    if not asked.only:
        asked.out.write_text(_page(rows), encoding="utf-8")


def _page(rows: list[tuple[str, ...]]) -> str:
    head = (
        "# The first afternoon",
        "",
        "Made by `python -m tests.thirty_models`: networks of the kinds that people bring, what they would type, and "
        "the first sentence of the answer. Exit code 0 is a report, 2 a refusal; seconds are of the processor, loading "
        "the libraries included.",
        "",
        machine(1, ("numpy", "torch", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")),
        "",
        "| network | typed | exit code | answer | s |",
        "|---|---|---:|---|---:|",
    )
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


if __name__ == "__main__":
    main()
