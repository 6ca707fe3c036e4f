"""What is kept of measured kernels, the bounds that are fitted to it, and the files that are made of these.

See `benchmarks.kernel_errors`, which measures. The inputs are in 1,024 bins of neighbouring float32 numbers.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.measuring import ROOT, machine
from idl_audit.values.arrays import FloatArray, IntArray

BINS: Final = 1024
LARGEST: Final = 2.0**127
"""Bounds refuse sizes that reach this."""
SMALLEST: Final = 2.0**-126
"""Errors below this are those of results that are flushed to 0, which bounds always allow for."""
UNIT: Final = 2.0**-24
ABSOLUTE, BY_INPUT, BY_VALUE, BEYOND, INPUTS, WRONG_STEPS, WORST_STEP = 0, 1, 2, 6, 7, 8, 9
"""Columns of what is kept of a form on a bin; 3 to 5 are the inputs at which the first three were met."""
COLUMNS: Final = 10
FILES: Final = (
    ROOT / "benchmarks/kernels.json",
    ROOT / "reports/kernels.md",
    ROOT / "idl_audit/implicit/kernel_table.py",
)
FEATURES: Final = ("avx", "avx2", "fma", "avx512f", "avx512vl", "avx512bw", "avx512dq", "avx512_vnni", "avx512_bf16")


@dataclass
class Bins:
    """What is known of one function: every form of it on every bin."""

    name: str
    forms: list[str] = field(default_factory=list)
    numbers: FloatArray = field(default_factory=lambda: np.zeros((0, BINS, COLUMNS)))
    """(forms, bins, columns)."""
    least: FloatArray = field(default_factory=lambda: np.full(BINS, np.inf))
    """The least |phi(z)| of a bin."""
    every: IntArray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """1 where every input of a bin was tried, N where every N-th was, 0 where none was."""
    seconds: float = 0.0
    """Of the processor."""

    @classmethod
    def read(cls, state: Path, name: str) -> Bins:
        """Return what a folder has of a function: nothing, where it has no such file."""
        path = state / f"{name}.npz"
        if not path.exists():
            return cls(name)
        with np.load(path) as file:
            forms = [str(form) for form in file["forms"]]
            return cls(name, forms, file["numbers"], file["least"], file["every"], float(file["seconds"]))

    def write(self, state: Path) -> None:
        """Write all of it, or leave the file as it was."""
        state.mkdir(parents=True, exist_ok=True)
        path = state / f"{self.name}.npz"
        made = path.with_suffix(".part.npz")
        arrays = {"numbers": self.numbers, "least": self.least, "every": self.every}
        np.savez(made, forms=np.array(self.forms), seconds=np.array(self.seconds), **arrays)
        made.rename(path)

    def has(self, forms: Sequence[str], number: int) -> bool:
        """Whether all these forms were measured on a bin."""
        return all(form in self.forms and self.numbers[self.forms.index(form), number, INPUTS] > 0 for form in forms)

    def put(self, forms: Sequence[str], number: int, every: int, found: FloatArray, least: float) -> None:
        """Add what was found on a bin, (forms, columns); what was greater before stays."""
        for form, new in zip(forms, found, strict=True):
            if form not in self.forms:
                self.forms.append(form)
                self.numbers = np.concatenate([self.numbers, np.zeros((1, BINS, COLUMNS))])
            old = self.numbers[self.forms.index(form), number]
            old[3:6] = np.where(new[:3] > old[:3], new[3:6], old[3:6])
            old[:3] = np.maximum(old[:3], new[:3])
            old[BEYOND], old[WORST_STEP] = max(old[BEYOND], new[BEYOND]), max(old[WORST_STEP], new[WORST_STEP])
            old[INPUTS], old[WRONG_STEPS] = new[INPUTS], new[WRONG_STEPS]
        self.least[number] = min(least, self.least[number])
        self.every[number] = every

    @property
    def dense(self) -> int:
        """The largest k such that every float32 number with 2^-k <= |z| < 2^k was tried."""
        sparse = [distance(number) for number in range(BINS) if is_finite(number) and self.every[number] != 1]
        return min(sparse, default=128)

    @property
    def sparsest(self) -> int:
        """N where every N-th input was tried, at least; 0 where some bin was left out."""
        every = [int(self.every[number]) for number in range(BINS) if is_finite(number)]
        return 0 if min(every) == 0 else max(every)


def is_finite(number: int) -> bool:
    """Whether a bin holds finite numbers."""
    return _start(number) < math.inf


def distance(number: int) -> int:
    """Return the k >= 0 of a bin with 2^k <= |z| < 2^(k+1), or 2^-(k+1) <= |z| < 2^-k; numbers next to 0 are far."""
    exponent = (number % (BINS // 2)) // 2 - 127
    return exponent if exponent >= 0 else -exponent - 1


def _start(number: int) -> float:
    """Return the least |z| of a bin."""
    return float(np.uint32((number % (BINS // 2)) << 22).view(np.float32))


# --- bounds -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """|error| <= absolute + relative |z| + of_value |phi(z)| wherever it was measured, for |z| and |phi| < within."""

    absolute: float
    relative: float
    of_value: float
    within: float


SHARES: Final = 64 * UNIT
"""Relative errors above this are told as absolute ones."""
MATTERS: Final = 7
"""A bound is fitted to be small where 2^-k <= |z| < 2^k."""


def fitted(bins: Bins) -> Fit:
    """Return the bound that is the smallest multiple of what was measured, on the average of bins around 1.

    A bin is covered where its greatest error is below `absolute`, its greatest quotient by |z| below `relative`, or its
    greatest quotient by |phi(z)| below `of_value`.
    """
    numbers = bins.numbers.max(axis=0)
    known = bins.every > 0
    starts = np.array([_start(number) for number in range(BINS)])
    lost = known & ~np.isfinite(numbers[:, ABSOLUTE])
    within = float(min(starts[lost].min(initial=LARGEST), LARGEST))
    counts = known & (starts < within) & (numbers[:, ABSOLUTE] > SMALLEST)
    errors, by_input, by_value = (numbers[counts, column] for column in (ABSOLUTE, BY_INPUT, BY_VALUE))
    near = np.array([distance(number) < MATTERS for number in range(BINS)])[counts]
    sizes = starts[counts], np.where(np.isfinite(bins.least[counts]), bins.least[counts], 0.0)
    best, least = Fit(rounded_up(float(errors.max(initial=SMALLEST))), 0.0, 0.0, within), math.inf
    for relative in _candidates(by_input):
        for of_value in _candidates(by_value):
            open_ = (by_input > relative) & (by_value > of_value)
            absolute = rounded_up(float(errors[open_].max(initial=SMALLEST)))
            bound = (absolute + relative * sizes[0] + of_value * sizes[1])[near]
            score = float(np.log2(bound / np.maximum(errors[near], 2.0**-60)).mean()) if near.any() else absolute
            if score < least:
                best, least = Fit(absolute, relative, of_value, within), score
    return best


def _candidates(quotients: FloatArray) -> list[float]:
    some = np.unique([rounded_up(float(value)) for value in quotients[(quotients <= SHARES) & (quotients >= UNIT / 8)]])
    return [0.0, *(float(value) for value in some[:: max(1, len(some) // 32)]), *map(float, some[-1:])]


def beyond(bins: Bins, fit: Fit) -> list[str]:
    """Return the forms of a function with errors above a bound, and where."""
    finite = np.array([is_finite(number) for number in range(BINS)])
    starts = np.array([_start(number) if finite[number] else 0.0 for number in range(BINS)])
    sizes = np.where(np.isfinite(bins.least), bins.least, 0.0)
    bound = fit.absolute + fit.relative * starts + fit.of_value * sizes
    found = []
    for form, numbers in zip(bins.forms, bins.numbers, strict=True):
        off = (numbers[:, ABSOLUTE] > np.maximum(bound, SMALLEST)) & (starts < fit.within) & (bins.every > 0) & finite
        off &= (numbers[:, BY_INPUT] > fit.relative) & (numbers[:, BY_VALUE] > fit.of_value)
        if off.any():
            at = int(np.where(off, numbers[:, ABSOLUTE], 0.0).argmax())
            found.append(f"{form}: {numbers[at, ABSOLUTE]:.3g} at {numbers[at, 3]:.9g}")
    return found


def rounded_up(value: float, digits: int = 3) -> float:
    """Return the next number above with so many digits."""
    if value == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    found = float(f"{math.ceil(value / step) * step:.{digits - 1}e}")
    return found if found >= value else float(f"{(math.ceil(value / step) + 1) * step:.{digits - 1}e}")


# --- files ------------------------------------------------------------------------------------------------------------


def summary(bins: Bins) -> dict[str, Any]:
    """Return what is told of a function."""
    forms = []
    for name, numbers in zip(bins.forms, bins.numbers, strict=True):
        finite = np.where(np.isfinite(numbers[:, ABSOLUTE]), numbers[:, ABSOLUTE], -1.0)
        near = np.array([-MATTERS <= (n % (BINS // 2)) // 2 - 127 < MATTERS for n in range(BINS)])
        at, worst = int(np.where(near, finite, -1.0).argmax()), int(numbers[:, BY_VALUE].argmax())
        forms.append(
            {
                "form": name,
                "absolute": float(numbers[at, ABSOLUTE]),
                "at": float(numbers[at, 3]),
                "by_value": _told(float(numbers[worst, BY_VALUE]) / UNIT),
                "by_value_at": float(numbers[worst, 5]),
                "beyond": float(numbers[:, BEYOND].max()),
                "wrong_steps": int(numbers[:, WRONG_STEPS].sum()),
                "worst_step": float(numbers[:, WORST_STEP].max()),
            }
        )
    return {
        **asdict(fitted(bins)),
        "dense": bins.dense,
        "every": bins.sparsest,
        "inputs": int(bins.numbers[0, :, INPUTS].sum()) if len(bins.numbers) else 0,
        "seconds": round(bins.seconds),
        "forms": forms,
    }


def _told(number: float) -> float:
    return float(f"{number:.3g}")


def figures(state: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return all that the files are made of: what the folder has, and of other functions what was written before."""
    every = {name: summary(bins) for name in names if (bins := Bins.read(state, name)).sparsest}
    versions = {name: metadata.version(name) for name in ("onnxruntime", "torch")}
    before = json.loads(FILES[0].read_text(encoding="utf-8")) if FILES[0].exists() else {}
    here = machine(1, ("numpy", "scipy"))
    every = {name: {**one, "machine": here} for name, one in every.items()}
    if before.get("versions") == versions:
        there = before.get("machine", here)  # files of before machines were told apart have one for all
        kept = {name: {"machine": there, **one} for name, one in before["functions"].items() if name in names}
        every = {**kept, **every}
    flags = Path("/proc/cpuinfo")
    found = flags.read_text(encoding="utf-8").split() if flags.exists() else []
    return {
        "versions": versions,
        "features": [feature for feature in FEATURES if feature in found] or [platform.machine()],
        "date": datetime.now(UTC).date().isoformat(),
        "functions": dict(sorted(every.items())),
    }


def table_of(told: Mapping[str, Any]) -> str:
    """Return the module that proofs read."""
    rows = []
    for name, one in told["functions"].items():
        numbers = ", ".join(f"{one[key]!r}" for key in ("absolute", "relative", "of_value"))
        rows.append(f'        "{name}": Measured({numbers}, 2.0**{round(math.log2(one["within"]))}, {one["dense"]}),')
    versions = ", ".join(f'"{name}": "{version}"' for name, version in told["versions"].items())
    return f'''"""Measured errors of float32 kernels (reports/kernels.md), by benchmarks/kernel_errors.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

VERSIONS: Final[Mapping[str, str]] = MappingProxyType({{{versions}}})
"""Of the libraries whose kernels were measured."""

DENSE: Final = {DENSE}
"""A function is known well where every float32 number from 2^-k to 2^k was tried, for this k."""


@dataclass(frozen=True)
class Measured:
    """|computed - exact| <= absolute + relative |z| + of_value |phi(z)|, as far as it was seen."""

    absolute: float
    relative: float
    of_value: float
    within: float
    """Where |z| and |phi(z)| are below this."""
    dense: int
    """Every float32 number with 2^-dense <= |z| < 2^dense was tried, beyond that every so-many-th."""


MEASURED: Final[Mapping[str, Measured]] = MappingProxyType(
    {{
{chr(10).join(rows)}
    }}
)
"""Activation -> the greatest errors, over all forms in which it is computed."""
'''


DENSE: Final = 16


def _machines(told: Mapping[str, Any]) -> str:
    """Return on which machines what was measured: names of functions for all but the one of most."""
    by_machine: dict[str, list[str]] = {}
    for name, one in told["functions"].items():
        by_machine.setdefault(one["machine"], []).append(name)
    most, *others = sorted(by_machine, key=lambda one: len(by_machine[one]), reverse=True)
    return " ".join([f"{most}.", *(f"Of {', '.join(by_machine[one])}: {one}." for one in others)])


def report_of(told: Mapping[str, Any]) -> str:
    """Return the report for readers."""
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    lines = [
        "# Errors of float32 kernels",
        "",
        "Made by `python -m benchmarks.kernel_errors --write` of what `python -m benchmarks.kernel_errors` has "
        "measured: every function that a library computes, as its operator and as the chains that exporters write, in "
        "onnxruntime without and with its optimisations and in torch, in the body and in the tail of tensors (1 to 64 "
        "inputs at changing alignments, on a sample), against the same function in float64.",
        "",
        f"{versions}; {', '.join(told['features'])}; {told['date']}. {_machines(told)}",
        "",
        "**Bounds.** |computed - exact| <= absolute + relative |z| + of value |phi(z)| wherever it was measured, u = "
        "2^-24. Tried: `2^k` stands for every float32 number with 2^-k <= |z| < 2^k, and beyond that every N-th. "
        f"Proofs take twice these bounds where k is {DENSE} or more, elsewhere four times.",
        "",
        "| function | absolute | relative u | of value u | for sizes below | tried | processor s |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for name, one in told["functions"].items():
        within = f"2^{one['dense']}, " if one["dense"] else ""
        tried = "all" if one["every"] == 1 else f"{within}every {one['every']}th"
        shares = " | ".join(f"{one[key] / UNIT:.3g}" for key in ("relative", "of_value"))
        lines.append(
            f"| {name} | {one['absolute']:.3g} | {shares} | 2^{round(math.log2(one['within']))} | "
            f"{tried} | {one['seconds']} |"
        )
    lines += [
        "",
        f"**Each form.** Greatest error between 2^-{MATTERS} and 2^{MATTERS}, and where; greatest error in units u of "
        "the value, over all inputs; how far results leave the function's range; steps the wrong way of a monotone "
        "function, from one tried input to the next, and the largest of them in units in the last place.",
        "",
        "| function | form | error | at | error u of the value | at | beyond the range | wrong steps | largest |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, one in told["functions"].items():
        for form in one["forms"]:
            beyond = f"{form['beyond']:.1e}" if form["beyond"] else ""
            steps = f"{form['wrong_steps']:,} | {form['worst_step']:.0f}" if form["wrong_steps"] else " | "
            lines.append(
                f"| {name} | {form['form']} | {form['absolute']:.2e} | {form['at']:.6g} | {form['by_value']:.3g} | "
                f"{form['by_value_at']:.6g} | {beyond} | {steps} |"
            )
    return "\n".join([*lines, ""])


def written(state: Path, names: Sequence[str]) -> None:
    """Write the figures, the report and the table."""
    told = figures(state, names)
    texts = (json.dumps(told, indent=1) + "\n", report_of(told), table_of(told))
    for path, text in zip(FILES, texts, strict=True):
        path.write_text(text, encoding="utf-8")
