"""idl-audit from Python: networks as implicit models, verdicts for arrays, whole reports for files.

    >>> import numpy as np
    >>> import idl_audit
    >>> model = idl_audit.load("sample_models/digits_mlp.onnx")
    >>> model.n_inputs, model.n_states, model.n_outputs
    (64, 80, 10)
    >>> S = idl_audit.sensitivity_matrix(model, "best")
    >>> S.shape
    (10, 64)

No output moves by more than S |u - v| between two inputs u and v:

    >>> with np.load("sample_models/digits_mlp.npz") as data:
    ...     x, y = data["inputs"].astype(float), data["labels"]
    >>> bool((abs(model(x[:1]) - model(x[1:2])) <= abs(x[:1] - x[1:2]) @ S.T).all())
    True

Verdicts, with the file's own network as the judge of attacks:

    >>> found = idl_audit.certify("sample_models/digits_mlp.onnx", x[:10], y[:10], eps=0.02, bounds=(0, 1))
    >>> found.n, found.certified, found.falsified, found.unknown, found.clean_wrong
    (10, 10, 0, 0, 0)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from idl_audit.commands.certify import RobustnessOptions, audit_robustness
from idl_audit.commands.shared import subject as subjects
from idl_audit.commands.shared.classifier import as_classifier, model_classifier
from idl_audit.commands.shared.samples import DataOptions
from idl_audit.data.labels import checked_labels
from idl_audit.data.numbers import Eps, check_eps_units, parse_eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.samples import Layout
from idl_audit.decide.ladder import Options, Result, decide_sample, in_order_of_cost
from idl_audit.graph.torch_reader import example_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.report.schema import Report
from idl_audit.search.attacks import AttackOptions
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.network import Network
from idl_audit.values.verdicts import Verdict

if TYPE_CHECKING:
    from idl_audit.graph.torch_reader import Module, Tensor

VerdictName: TypeAlias = Literal["certified", "falsified", "unknown", "clean_wrong"]

ATTACKS: Final = ("sign", "pgd", "lp")
"""What `attack` uses."""

_CHECKED = 100


@dataclass(frozen=True, eq=False)
class SampleVerdict:
    """What is known of one sample.

    verdict: certified (proved), falsified (the network misclassifies `adversarial`), clean_wrong (it misclassifies the
    sample itself), or unknown. lower_bound: proved lower bound of the smallest margin y_label - y_j over the set, in
    units of the outputs; None where none was computed. margin: the smallest that an attack found.
    """

    index: int
    label: int
    predicted: int
    verdict: VerdictName
    method: str | None
    """What decided it."""
    reason: str | None
    """Why it is unknown."""
    lower_bound: float | None
    margin: float | None
    becomes: int | None
    """The class that the network gives `adversarial`; None where there is none, -1 where an output is no number."""
    adversarial: Float32Array | None
    """An input within the set that the network misclassifies, shape (p,)."""
    seconds: float


@dataclass(frozen=True)
class Robustness:
    """The verdicts of n samples at one radius; the four counts sum to n."""

    eps: float
    """Radius in the l-infinity norm, in the units of the samples."""
    samples: tuple[SampleVerdict, ...]
    judge: str
    """The network that has the last word on attacks."""

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.samples)

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter(sample.verdict for sample in self.samples)

    @property
    def certified(self) -> int:
        """Samples whose class no change by at most eps changes: proved."""
        return self._counts["certified"]

    @property
    def falsified(self) -> int:
        """Samples with an input within eps that the network misclassifies."""
        return self._counts["falsified"]

    @property
    def unknown(self) -> int:
        """Samples that are neither."""
        return self._counts["unknown"]

    @property
    def clean_wrong(self) -> int:
        """Samples that the network misclassifies without any change."""
        return self._counts["clean_wrong"]

    @property
    def adversarial(self) -> Float32Array:
        """All inputs that attacks found, shape (falsified, p), in the order of the samples."""
        found = [sample.adversarial for sample in self.samples if sample.adversarial is not None]
        return np.array(found, np.float32) if found else np.empty((0, 0), np.float32)


def load(
    model: str | Path | Module, example_input: Tensor | None = None, *, output_name: str | None = None
) -> ImplicitModel:
    """Return the implicit model of a file or a torch module, checked against the network on 20 random inputs.

    Args:
        model: an ONNX file, a converted .npz, or a torch module, which is put into evaluation mode.
        example_input: for a module, an input with its batch axis.
        output_name: of a file with several outputs, the one to load.

    Raises:
        InvalidInputError: where the file cannot be read or has parts without an implicit form.
        AgreementError: where the implicit model is not the network.

    >>> load("sample_models/digits_resnet.onnx").is_feed_forward
    True
    """
    if isinstance(model, str | Path):
        return subjects.load(model, output_name=output_name)
    if example_input is None:
        raise OptionError("a torch module does not say what it reads; give load(module, example_input)")
    return subjects.from_torch(model, example_input)


def certify(
    model: str | Path | Module | ImplicitModel,
    x: Any,
    y: Any,
    *,
    eps: float | str,
    bounds: tuple[float, float] | None = None,
    methods: Sequence[str] | None = None,
    threshold: float | None = None,
    time_limit: float = 60.0,
    seed: int = 0,
) -> Robustness:
    """Decide for each sample whether any change of its inputs by at most eps can change the predicted class.

    Args:
        model: a model file, a torch module, or an implicit model, which is then itself the judge of attacks.
        x: n samples as the network reads them, shape (n, ...): an array or a tensor.
        y: their n classes, counted from 0; 0 and 1, or -1 and +1, for a network with one output.
        eps: radius in the l-infinity norm, in the units of x: 0.03 or "8/255".
        bounds: the valid range of the inputs; changed ones stay within it.
        methods: as those of `idl-audit certify --method`; None stands for those that suit the model and the sets.
        threshold: for a network with one output, the number above which it means class 1; 0.5 after a sigmoid and
            else 0 unless given.
        time_limit: seconds for one sample.
        seed: of every random choice.

    Raises:
        InvalidInputError: where the model, the samples or an option is refused.
        AgreementError: where the implicit model is not the network.

    >>> import numpy as np
    >>> data = np.load("sample_models/digits_mlp.npz")
    >>> found = certify("sample_models/digits_mlp.onnx", data["inputs"][:3], data["labels"][:3], eps="5/255")
    >>> [sample.verdict for sample in found.samples]
    ['certified', 'certified', 'certified']
    """
    return _decide(model, x, y, eps, bounds, Options(_methods(methods), time_limit, seed=seed), threshold)


def attack(
    model: str | Path | Module | ImplicitModel,
    x: Any,
    y: Any,
    *,
    eps: float | str,
    bounds: tuple[float, float] | None = None,
    methods: Sequence[str] = ATTACKS,
    target: int | None = None,
    threshold: float | None = None,
    time_limit: float = 60.0,
    seed: int = 0,
) -> Robustness:
    """Look for inputs within eps of each sample that the network misclassifies; the network confirms each.

    As `certify`, with `target`: the only class that counts as success. What withstands these attacks is unknown, not
    certified, except where the bound of the LP proves it.

    >>> import numpy as np
    >>> data = np.load("sample_models/digits_mlp.npz")
    >>> x, y = data["inputs"][:20], data["labels"][:20]
    >>> found = attack("sample_models/digits_mlp.onnx", x, y, eps=0.1, methods=["pgd"])
    >>> found.falsified == len(found.adversarial) > 0
    True
    """
    options = Options(in_order_of_cost(methods), time_limit, AttackOptions(target=target), seed)
    return _decide(model, x, y, eps, bounds, options, threshold)


def audit(
    model: str | Path,
    data: str | Path,
    *,
    eps: float | str,
    labels: str | Path | None = None,
    limit: int | None = None,
    index: Sequence[int] | None = None,
    scale: float = 1.0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    layout: Layout = "native",
    bounds: tuple[float, float] | None = None,
    methods: Sequence[str] | None = None,
    threshold: float | None = None,
    time_limit: float = 60.0,
    seed: int = 0,
) -> Report:
    """Return the report of `idl-audit certify` on files: every verdict, figures on model and data, diagnostics.

    The arguments are the options of that command. `report.model_dump_json()` is what it would write.

    Raises:
        InvalidInputError: where the model, the data or an option is refused.
        AgreementError: where the implicit model is not the network.

    >>> report = audit("sample_models/digits_mlp.onnx", "sample_models/digits_mlp.npz", eps="0.01,0.02", limit=10)
    >>> [(entry.eps, entry.certified, entry.clean_wrong) for entry in report.summary.per_eps]
    [(0.01, 10, 0), (0.02, 10, 0)]
    """
    preprocessing = Preprocessing(scale=scale, mean=tuple(mean), std=tuple(std), bounds=bounds)
    given = DataOptions(
        path=Path(data),
        labels=None if labels is None else Path(labels),
        limit=limit,
        index=None if index is None else tuple(index),
        layout=layout,
        preprocessing=preprocessing,
    )
    verdicts = Options(_methods(methods), time_limit, seed=seed)
    reading = subjects.ModelOptions(threshold=threshold)
    return audit_robustness("certify", Path(model), RobustnessOptions(_radii(eps), given, verdicts, model=reading))


def _decide(
    model: str | Path | Module | ImplicitModel,
    x: Any,
    y: Any,
    eps: float | str,
    bounds: tuple[float, float] | None,
    options: Options,
    threshold: float | None,
) -> Robustness:
    radii = _radii(eps)
    if len(radii) != 1:
        raise OptionError(f"eps must be one radius such as 0.03 or '8/255', not {eps!r}")
    array = _array(x)
    rows = _rows(array)
    opened = _opened(model, array, rows, threshold)
    implicit, network = opened.model, opened.network
    target = options.attack.target
    if target is not None and not 0 <= target < implicit.n_outputs:
        raise OptionError(f"target must be a class of the network, 0 to {implicit.n_outputs - 1}, not {target}")
    labels = checked_labels(_array(y), len(rows), implicit.n_outputs, Path("y"), one_output=opened.one_output)
    check_eps_units(radii, float(rows.min()), float(rows.max()))
    lo, hi = Preprocessing(bounds=bounds).bounds or (None, None)
    boxes = [Box.around(row, radii[0].value, valid_lo=lo, valid_hi=hi, point_type=opened.point_type) for row in rows]
    samples = tuple(
        _verdict(place, label, decide_sample(implicit, network, rows[place], label, boxes[place], options))
        for place, label in enumerate(labels.tolist())
        if label != target
    )
    return Robustness(radii[0].value, samples, opened.judge)


def _verdict(place: int, label: int, result: Result) -> SampleVerdict:
    adversarial = becomes = None
    if result.verdict is Verdict.FALSIFIED and result.found is not None:
        becomes = result.found.predicted
        adversarial = result.found.point.copy()
        adversarial.setflags(write=False)
    return SampleVerdict(
        index=place,
        label=label,
        predicted=result.predicted,
        verdict=result.verdict.value,
        method=result.method,
        reason=None if result.reason is None else result.reason.value,
        lower_bound=result.lower,
        margin=None if result.found is None else result.found.margin,
        becomes=becomes,
        adversarial=adversarial,
        seconds=result.seconds,
    )


def _methods(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else in_order_of_cost(names)


def _radii(eps: float | str) -> tuple[Eps, ...]:
    return parse_eps(eps if isinstance(eps, str) else repr(float(eps)))


def _array(values: Any) -> AnyArray:
    """Return an array for an array, a list or a tensor."""
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)


def _rows(array: AnyArray) -> FloatArray:
    if array.ndim < 2 or array.size == 0 or array.dtype.kind not in "fiub":
        raise DataError(f"x must hold samples of numbers along its first axis, not shape {array.shape}, {array.dtype}")
    rows = array.reshape(len(array), -1).astype(np.float64)
    if not np.isfinite(rows).all():
        raise DataError("x has NaN or infinity; every number must be finite", code="IDL116")
    return rows


@dataclass(frozen=True)
class _Opened:
    """An implicit model, the network that judges attacks, which agree on the samples, and more of the judge."""

    model: ImplicitModel
    network: Network
    judge: str
    one_output: bool
    """Whether the classes are made of one output by a threshold."""
    point_type: np.dtype[Any]
    """What the network reads."""


def _opened(
    model: str | Path | Module | ImplicitModel, array: AnyArray, rows: FloatArray, threshold: float | None
) -> _Opened:
    if isinstance(model, ImplicitModel):
        _check_fit(model, array, rows)
        found, network = model_classifier(model, threshold, Path("the model"))
        points = np.dtype(np.float32)
        return _Opened(found, network, "the implicit model itself", model.n_outputs == 1, points)
    if isinstance(model, str | Path):
        subject = subjects.open_subject(Path(model))
    else:
        subject = subjects.open_module(model, example_of(array))
    subject = as_classifier(subject, threshold)
    _check_fit(subject.model, array, rows)
    subjects.check_agreement(subject, rows[:_CHECKED])
    one_output = subject.threshold is not None
    return _Opened(subject.model, subject.original, subject.original.name, one_output, subject.point_type)


def _check_fit(model: ImplicitModel, array: AnyArray, rows: FloatArray) -> None:
    if rows.shape[1] != model.n_inputs:
        raise DataError(
            f"x has samples of shape {array.shape[1:]}, {rows.shape[1]} numbers each, and the model's input "
            f"{model.input_shape} takes {model.n_inputs}",
            code="IDL115",
        )
