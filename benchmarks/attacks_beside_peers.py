"""Write reports/attacks.md: `attack --method auto` beside foolbox and adversarial-robustness-toolbox (ART).

    IDL_AUDIT_DATA=... python -m benchmarks.attacks_beside_peers [--samples 100] [--networks LIST] [--out DIR]

The same samples, sets and queries: 4,000 a sample for each ensemble (what it has no other attack for goes into starts
of its descent), and no attack gets a sample that an earlier one has toppled. The peers attack onnx2torch's copy of the
network, as torch modules are what they know. A point counts where it lies in the set, in rational arithmetic, and
onnxruntime misclassifies it alone, as float32 numbers; what lies outside by no more than 1e-6 is told apart. Seconds
are of the processor. The peers are no dependencies; they are installed beside idl-audit:

    python -m venv PEERS; PEERS/bin/pip install foolbox adversarial-robustness-toolbox multiprocess
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.measuring import machine
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.decide.ladder import Options, Sample, decide_together, samples_at_once
from idl_audit.graph.onnx_writer import clean_model
from idl_audit.search.attacks import AttackOptions
from idl_audit.values.arrays import Float32Array, FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.input_sets import InputSet, NormBall
from idl_audit.values.verdicts import NormName

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "torch", "onnxruntime", "foolbox", "adversarial-robustness-toolbox")
QUERIES: Final = 1000
IN_ALL: Final = 4 * QUERIES
"""Of each ensemble, on one sample."""
STEPS: Final = 100
ORDERS: Final = {"linf": np.inf, "l2": 2, "l1": 1}
RADII: Final = {"digits_mlp": (0.1, 0.5, 2.0), "digits_conv": (0.1, 0.5, 1.0), "mnist-net_256x2": (0.03, 0.5, 3.0)}
NEAR: Final = 1e-6


@dataclass(frozen=True)
class Case:
    """Samples that the network is right on, and the radius of the sets around them."""

    name: str
    subject: Subject
    rows: FloatArray
    labels: IntArray
    norm: NormName
    eps: float

    @property
    def module(self) -> Any:
        """onnx2torch's copy of the network, for a batch of pictures or rows."""
        from idl_audit.graph import torch_copy  # torch

        graph, output = self.subject.graph, self.subject.output
        assert graph is not None
        assert output is not None
        converter = torch_copy._import_onnx2torch()  # torchvision may be broken beside a torch for the CPU
        for _, candidate in torch_copy._candidates(clean_model(graph, output), graph.opset, []):
            with warnings.catch_warnings(), suppress(Exception):  # not every version is known to it
                warnings.simplefilter("ignore")
                return converter.convert(candidate).eval()
        raise SystemExit(f"onnx2torch cannot convert {self.subject.path}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a batch as the network reads it."""
        return (-1, *self.subject.input_shape[1:])

    def set(self, row: FloatArray) -> InputSet:
        """Return the set around a sample."""
        if self.norm == "linf":
            return Box.around(row, self.eps, valid_lo=0.0, valid_hi=1.0)
        return NormBall.around(row, self.eps, self.norm, valid_lo=0.0, valid_hi=1.0)


Found = dict[int, Float32Array]
"""Place of a sample -> the point that an ensemble says is adversarial."""


def ours(case: Case) -> Found:
    """Attack with `auto`."""
    options = Options(("auto",), attack=AttackOptions(max_queries=QUERIES))
    samples = [Sample(x, int(y), case.set(x)) for x, y in zip(case.rows, case.labels, strict=True)]
    size = samples_at_once(case.subject.model, options.methods)
    found: Found = {}
    for at in range(0, len(samples), size):
        some = decide_together(case.subject.model, case.subject.original, samples[at : at + size], options)
        for place, result in enumerate(some, at):
            if result is not None and result.found is not None and result.found.holds:
                found[place] = result.found.point
    return found


def foolbox(case: Case) -> Found:
    """Attack with projected gradient descent on the cross-entropy and minimum-norm attacks."""
    import foolbox as fb
    import torch

    model = fb.PyTorchModel(case.module, bounds=(0, 1), device="cpu")
    kinds = {
        "linf": (fb.attacks.LinfPGD, fb.attacks.LInfFMNAttack),
        "l2": (fb.attacks.L2PGD, fb.attacks.L2FMNAttack, fb.attacks.DDNAttack),
        "l1": (fb.attacks.SparseL1DescentAttack, fb.attacks.L1FMNAttack),
    }[case.norm]
    made = [kind(steps=STEPS) if k == 0 else kind(steps=QUERIES) for k, kind in enumerate(kinds)]
    repeats = (IN_ALL - QUERIES * (len(made) - 1)) // STEPS
    turns = [(made[0], repeats), *((one, 1) for one in made[1:])]
    found: Found = {}
    for attack, repeats in turns:
        for _ in range(repeats):
            left = [k for k in range(len(case.rows)) if k not in found]
            if not left:
                return found
            inputs = torch.tensor(case.rows[left].astype(np.float32).reshape(case.shape))
            _, clipped, is_adv = attack(model, inputs, torch.tensor(case.labels[left]), epsilons=case.eps)
            points = clipped.detach().numpy().reshape(len(left), -1)
            found |= {left[k]: points[k] for k in np.flatnonzero(is_adv.numpy())}
    return found


def art(case: Case) -> Found:
    """Attack with ART's AutoAttack: APGD on two losses, DeepFool, Square."""
    import torch
    from art.attacks.evasion import AutoAttack, AutoProjectedGradientDescent, DeepFool, SquareAttack
    from art.estimators.classification import PyTorchClassifier

    order = ORDERS[case.norm]
    shape = case.subject.input_shape[1:]
    classifier = PyTorchClassifier(
        model=case.module, loss=torch.nn.CrossEntropyLoss(), input_shape=shape, nb_classes=10, clip_values=(0.0, 1.0)
    )
    more = {"norm": order, "eps": case.eps, "batch_size": 64}
    others: list[Any] = []
    if case.norm != "l1":
        others.append(DeepFool(classifier, max_iter=QUERIES // 10, batch_size=64, verbose=False))
    if case.norm != "l1" and len(shape) == 3:  # it is for pictures
        others.append(SquareAttack(classifier, max_iter=QUERIES, nb_restarts=1, verbose=False, **more))
    descents = [
        AutoProjectedGradientDescent(
            classifier,
            eps_step=2 * case.eps,
            max_iter=STEPS,
            nb_random_init=(IN_ALL - QUERIES * len(others)) // (2 * STEPS),
            loss_type=loss,
            verbose=False,
            **more,
        )
        for loss in ("cross_entropy", "difference_logits_ratio")
    ]
    ensemble = AutoAttack(classifier, attacks=[*descents, *others], eps_step=2 * case.eps, **more)
    inputs = case.rows.astype(np.float32).reshape(case.shape)
    points = ensemble.generate(inputs, np.eye(10)[case.labels]).reshape(len(inputs), -1)
    wrong = classifier.predict(points.reshape(case.shape)).argmax(axis=1) != case.labels
    return {int(k): points[k].astype(np.float32) for k in np.flatnonzero(wrong)}


ENSEMBLES: Final[dict[str, Callable[[Case], Found]]] = {"idl-audit": ours, "foolbox": foolbox, "ART": art}


def counted(case: Case, found: Found) -> tuple[int, int]:
    """Return how many points lie in the exact set and err, and how many more lie within `NEAR` of it and err."""
    inside = near = 0
    for place, point in found.items():
        if int(case.subject.original(point[None])[0].argmax()) == case.labels[place]:
            continue
        change = [abs(Fraction(float(u)) - Fraction(float(c))) for u, c in zip(point, case.rows[place], strict=True)]
        in_range = bool((point >= 0).all() and (point <= 1).all())
        size = {"linf": max(change), "l2": sum(d * d for d in change), "l1": sum(change)}[case.norm]
        power = 2 if case.norm == "l2" else 1
        inside += in_range and size <= Fraction(case.eps) ** power
        near += not size <= Fraction(case.eps) ** power and size <= Fraction(case.eps * (1 + NEAR)) ** power
    return inside, near


def cases(names: Sequence[str], samples: int) -> Iterator[Case]:
    """Yield the networks with each norm."""
    for name in [name for name in names if name.startswith("digits")]:
        path = ROOT / "sample_models" / name
        with np.load(path.with_suffix(".npz")) as data:
            yield from _of(name, path.with_suffix(".onnx"), data["inputs"][:samples], data["labels"][:samples])
    if "mnist-net_256x2" not in names:
        return
    folder = Path(os.environ["IDL_AUDIT_DATA"])
    with np.load(folder / "mnist.npz") as data:
        model = folder / "vnncomp/mnist_fc/mnist-net_256x2.onnx"
        yield from _of("mnist-net_256x2", model, data["test_images"][:samples] / 255.0, data["test_labels"][:samples])


def _of(name: str, path: Path, inputs: FloatArray, labels: IntArray) -> Iterator[Case]:
    subject = open_subject(path)
    rows = inputs.reshape(len(inputs), -1).astype(np.float32).astype(np.float64)
    right = subject.original(rows.astype(np.float32)).argmax(axis=1) == labels
    for norm, eps in zip(ORDERS, RADII[name], strict=True):
        yield Case(name, subject, rows[right], labels[right].astype(np.int64), norm, eps)  # type: ignore[arg-type]


HEAD: Final = "| network | set | samples | ensemble | found | outside by rounding | s of CPU |"


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--networks", default=",".join(RADII))
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    chosen = parser.parse_args()
    lines = [HEAD, "|---|---|---:|---|---:|---:|---:|"]
    for case in cases(chosen.networks.split(","), chosen.samples):
        for name, attack in ENSEMBLES.items():
            attack(
                Case(case.name, case.subject, case.rows[:1], case.labels[:1], case.norm, case.eps)
            )  # loads libraries
            start = time.process_time()
            found = attack(case)
            seconds = time.process_time() - start
            inside, near = counted(case, found)
            lines.append(
                f"| {case.name} | {case.norm}, eps {case.eps:g} | {len(case.rows)} | {name} | {inside} | {near} | "
                f"{seconds:.1f} |"
            )
            print(lines[-1], flush=True)
    command = f"python -m benchmarks.attacks_beside_peers --samples {chosen.samples} --networks {chosen.networks}"
    text = [
        "# Attacks beside foolbox and ART",
        f"Made by `{command}`.",
        machine(1, PACKAGES),
        "Each ensemble has 4,000 queries a sample. *Found*: points that lie in the set in rational "
        "arithmetic and that onnxruntime misclassifies, asked alone. *Outside by rounding*: points that err and lie "
        "outside the set by at most 1e-6 of its radius; they are not counted.",
        "\n".join(lines),
    ]
    (chosen.out / "attacks.md").write_text("\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
