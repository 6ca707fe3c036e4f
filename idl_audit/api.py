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

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.certify_everywhere import audit_everywhere
from idl_audit.commands.compare import audit_comparison
from idl_audit.commands.options.comparing import CompareOptions
from idl_audit.commands.options.everywhere import EverywhereOptions
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.options.robustness import ArrayOptions, AttackedArrayOptions, Audit
from idl_audit.commands.shared import subject as subjects
from idl_audit.commands.shared.classifier import as_classifier, model_classifier
from idl_audit.commands.shared.float_margins import float_margins, float_margins_of
from idl_audit.commands.shared.points import readable_box
from idl_audit.commands.shared.ranges import refuse_other_size
from idl_audit.commands.shared.whole_numbers import range_of, refuse_fractions
from idl_audit.data.features import Features, read_features
from idl_audit.data.frames import is_frame, plain_rows, rows_of
from idl_audit.data.labels import checked_labels
from idl_audit.data.numbers import check_eps_units
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, Result, decide_sample
from idl_audit.decide.mixed import Rows
from idl_audit.decide.perturbed import decide_perturbed
from idl_audit.graph.torch_reader import argument_names, example_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.float_margins import Arithmetic, FloatMargins, Unbounded
from idl_audit.report.schema import Report
from idl_audit.values.arrays import AnyArray, Float32Array, FloatArray
from idl_audit.values.box import Box, check_whole, is_coarse, is_whole
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.input_sets import NormBall
from idl_audit.values.margins import predictions
from idl_audit.values.network import Network
from idl_audit.values.norms import Norm
from idl_audit.values.options import asking, build, by_keywords
from idl_audit.values.perturbations import Around, Perturbed
from idl_audit.values.verdicts import Verdict

if TYPE_CHECKING:
    from idl_audit.graph.torch_reader import Module, Tensor

VerdictName: TypeAlias = Literal["certified", "falsified", "unknown", "clean_wrong"]

COUNTS: Final = ("certified", "falsified", "unknown", "clean_wrong")
"""Names of the counts that sum to n."""
_CHECKED: Final = 100
"""Samples that the implicit model and the network are compared on, at most."""


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
    """An input within the set that the network misclassifies, shape (p,); of a perturbation, the float32 numbers next
    to such an input."""
    seconds: float
    parameters: tuple[float, ...] = ()
    """Of a perturbation: those that `adversarial` was made with."""

    def __repr__(self) -> str:
        """Return one line, without the numbers of the input."""
        known = (("becomes", self.becomes), ("lower_bound", self.lower_bound), ("reason", self.reason))
        more = "".join(f", {name}={value!r}" for name, value in known if value is not None)
        return f"<sample {self.index}, class {self.label}: {self.verdict}{more}>"


@dataclass(frozen=True)
class Robustness:
    """The verdicts of n samples at one radius; the four counts sum to n."""

    eps: float
    """Radius in the norm that was asked for, in the units of the samples; with `perturb`, the factor of its ranges."""
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

    def __repr__(self) -> str:
        """Return the radius and the counts."""
        counts = ", ".join(f"{name}={getattr(self, name)}" for name in COUNTS)
        return f"<Robustness eps={self.eps:g}: n={self.n}, {counts}>"

    def _repr_html_(self) -> str:
        """Return the counts as a table, for notebooks."""
        return _table([self])


@dataclass(frozen=True)
class Sweep(Sequence[Robustness]):
    """The verdicts of the same samples at several radii, in the order in which these were given."""

    results: tuple[Robustness, ...]

    @property
    def eps(self) -> tuple[float, ...]:
        """The radii."""
        return tuple(one.eps for one in self.results)

    @overload
    def __getitem__(self, place: int) -> Robustness: ...

    @overload
    def __getitem__(self, place: slice) -> Sweep: ...

    def __getitem__(self, place: int | slice) -> Robustness | Sweep:
        """Return what is known at one radius, or at some."""
        return Sweep(self.results[place]) if isinstance(place, slice) else self.results[place]

    def __len__(self) -> int:
        """Return the number of radii."""
        return len(self.results)

    def __repr__(self) -> str:
        """Return what is known at each radius, a line each."""
        return "\n".join(map(repr, self.results))

    def _repr_html_(self) -> str:
        """Return the counts as a table, for notebooks."""
        return _table(self.results)


def _table(results: Sequence[Robustness]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("eps", "n", *COUNTS))
    rows = (
        "".join(f"<td>{value}</td>" for value in (f"{one.eps:g}", one.n, *(getattr(one, name) for name in COUNTS)))
        for one in results
    )
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def load(
    model: str | Path | Module,
    example_input: Tensor | Sequence[Tensor] | None = None,
    *,
    output_name: str | None = None,
    input_name: str | Sequence[str] | None = None,
    fix: Mapping[str, str | Path] | None = None,
) -> ImplicitModel:
    """Return the implicit model of a file or a torch module, checked against the network on 20 random inputs.

    Args:
        model: an ONNX file, a converted .npz, or a torch module, which is put into evaluation mode.
        example_input: for a module, an input with its batch axis, or one for each of its arguments.
        output_name: of a file with several outputs, the one to load.
        input_name: of a file with several inputs, those that move, in the order of the input vector.
        fix: inputs of a file that are held fixed, and the files of their numbers.

    Raises:
        InvalidInputError: where the file cannot be read or has parts without an implicit form.
        AgreementError: where the implicit model is not the network.

    >>> load("sample_models/digits_resnet.onnx").is_feed_forward
    True
    """
    if isinstance(model, str | Path):
        fixed = tuple(f"{name}={path}" for name, path in (fix or {}).items())
        asked = {"output_name": output_name, "input_name": input_name, "fix": fixed}
        return subjects.load(model, build(ModelOptions, asked))
    if example_input is None:
        raise OptionError("a torch module does not say what it reads; give load(module, example_input)")
    return subjects.from_torch(model, example_input)


Radii: TypeAlias = list[Any] | tuple[Any, ...] | AnyArray
"""Several of what one radius is."""


@overload
def certify(
    model: str | Path | Module | ImplicitModel, x: Any, y: Any = None, *, eps: float | str, **options: Any
) -> Robustness: ...


@overload
def certify(
    model: str | Path | Module | ImplicitModel, x: Any, y: Any = None, *, eps: Radii, **options: Any
) -> Sweep: ...


@asking(ArrayOptions)
def certify(model: str | Path | Module | ImplicitModel, x: Any, y: Any = None, **options: Any) -> Robustness | Sweep:
    """Decide for each sample whether any change of its inputs by at most eps can change the predicted class.

    The options are those of `idl-audit certify`, and mean the same. Several radii, in a list, give a `Sweep`.

    Args:
        model: a model file, a torch module, or an implicit model, which is then itself the judge of attacks.
        x: n samples as the network reads them, shape (n, ...): an array or a tensor; for a network with several
            inputs a tuple of them in the order of the inputs, or a mapping by their names; of a table a data frame of
            pandas, whose columns are matched by name with those of features, where that is given, categories as texts.
        y: their n classes, counted from 0; 0 and 1, or -1 and +1, for a network with one output. Without them the
            class that the network predicts is taken for right: none is then clean_wrong.
        options: eps, the radius in the units of x: 0.03 or "8/255", or a list of radii; norm, what it bounds: linf, l2
            or l1; bounds, the valid range of the inputs; perturb, what changes in place of every input, such as
            "brightness=0.1,contrast=0.8:1.2", with image_shape where an input is a picture that the network reads flat;
            features, a features.toml, which says what valid rows are; method, threshold, arithmetic, time_limit,
            max_nodes, seed.

    Raises:
        InvalidInputError: where the model, the samples or an option is refused.
        AgreementError: where the implicit model is not the network.

    >>> import numpy as np
    >>> data = np.load("sample_models/digits_mlp.npz")
    >>> found = certify("sample_models/digits_mlp.onnx", data["inputs"][:3], data["labels"][:3], eps="5/255")
    >>> [sample.verdict for sample in found.samples]
    ['certified', 'certified', 'certified']
    >>> certify("sample_models/digits_mlp.onnx", data["inputs"][:3], eps=[0.01, 0.02], bounds=(0, 1))
    <Robustness eps=0.01: n=3, certified=3, falsified=0, unknown=0, clean_wrong=0>
    <Robustness eps=0.02: n=3, certified=3, falsified=0, unknown=0, clean_wrong=0>
    """
    return _decide(model, x, y, ArrayOptions, options, "certify")


@overload
def attack(
    model: str | Path | Module | ImplicitModel, x: Any, y: Any = None, *, eps: float | str, **options: Any
) -> Robustness: ...


@overload
def attack(
    model: str | Path | Module | ImplicitModel, x: Any, y: Any = None, *, eps: Radii, **options: Any
) -> Sweep: ...


@asking(AttackedArrayOptions)
def attack(model: str | Path | Module | ImplicitModel, x: Any, y: Any = None, **options: Any) -> Robustness | Sweep:
    """Look for inputs within eps of each sample that the network misclassifies; the network confirms each.

    As `certify`, with the options of `idl-audit attack`, such as `target`: the only class that counts as success. What
    withstands these attacks is unknown, not certified, except where the bound of the LP proves it.

    >>> import numpy as np
    >>> data = np.load("sample_models/digits_mlp.npz")
    >>> x, y = data["inputs"][:20], data["labels"][:20]
    >>> found = attack("sample_models/digits_mlp.onnx", x, y, eps=0.1, method=["pgd"])
    >>> found.falsified == len(found.adversarial) > 0
    True
    """
    return _decide(model, x, y, AttackedArrayOptions, options, "attack")


@asking(Audit, without=("data",))
def audit(model: str | Path, data: str | Path, **options: Any) -> Report:
    """Return the report of `idl-audit certify` on files: every verdict, figures on model and data, diagnostics.

    The options are those of that command. `report.model_dump_json()` is what it would write.

    Raises:
        InvalidInputError: where the model, the data or an option is refused.
        AgreementError: where the implicit model is not the network.

    >>> report = audit("sample_models/digits_mlp.onnx", "sample_models/digits_mlp.npz", eps="0.01,0.02", limit=10)
    >>> [(entry.eps, entry.certified, entry.clean_wrong) for entry in report.summary.per_eps]
    [(0.01, 10, 0), (0.02, 10, 0)]
    """
    given = by_keywords(Audit, options, "audit")
    return audit_robustness("certify", Path(model), build(Audit, given | {"data": data}).samples)


@asking(EverywhereOptions, without=("everywhere",))
def certify_everywhere(model: str | Path, **options: Any) -> Report:
    """Return the report of `idl-audit certify --everywhere` on a file: statements over the whole range of the inputs.

    The options are those of that command.

    Raises:
        InvalidInputError: where the model or an option is refused.
        UnsupportedModelError: where the model has loops.
        AgreementError: where the implicit model is not the network.

    >>> report = certify_everywhere("sample_models/digits_mlp.onnx", bounds=(0, 1), above=-1000)
    >>> [(one.text, str(one.verdict)) for one in report.everywhere.statements]
    [('every output stays above -1000', 'certified')]
    """
    given = by_keywords(EverywhereOptions, options, "certify_everywhere")
    return audit_everywhere(Path(model), build(EverywhereOptions, given | {"everywhere": True}))


@asking(CompareOptions, without=("data",))
def compare(model: str | Path, second: str | Path, data: str | Path, **options: Any) -> Report:
    """Return the report of `idl-audit compare` on files: where two networks agree, and how far apart outputs are.

    The options are those of that command.

    Raises:
        InvalidInputError: where a model, the data or an option is refused, or the networks cannot be compared.
        AgreementError: where an implicit model is not its network.

    >>> model, data = "sample_models/digits_mlp.onnx", "sample_models/digits_mlp.npz"
    >>> report = compare(model, model, data, eps="0.01", limit=2)
    >>> [(entry.certified, entry.difference_proved) for entry in report.comparison.per_eps]
    [(2, 0.0)]
    """
    given = by_keywords(CompareOptions, options, "compare")
    return audit_comparison(Path(model), Path(second), build(CompareOptions, given | {"data": data}))


def _decide(
    model: str | Path | Module | ImplicitModel,
    x: Any,
    y: Any,
    kind: type[ArrayOptions],
    options: Mapping[str, Any],
    call: str,
) -> Robustness | Sweep:
    given = by_keywords(kind, options, call)
    radii: Any = given.get("eps")
    several = isinstance(radii, list | tuple | np.ndarray)
    if several and not len(radii):
        raise OptionError("eps is an empty list; give at least one radius, such as [0.01, 0.02]")
    asked = [build(kind, given | {"eps": radius}) for radius in (radii if several else [radii])]
    features = None if asked[0].features is None else read_features(asked[0].features)
    given_x = _Given.of(x, features)
    opened, target = _opened(model, given_x, asked[0].threshold), asked[0].verdicts.attack.target
    if features is not None:
        refuse_other_size(features, opened.model.n_inputs, "the model")
    if target is not None and not 0 <= target < opened.model.n_outputs:
        raise OptionError(f"target must be a class of the network, 0 to {opened.model.n_outputs - 1}, not {target}")
    labels = _labels(opened, y)
    found = tuple(_decide_at(opened, labels, one, features) for one in asked)
    return Sweep(found) if several else found[0]


def _labels(opened: _Opened, y: Any) -> npt.NDArray[np.int64]:
    """Return the classes of the samples: those that are given, else those that the network predicts."""
    if y is not None:
        n, classes = len(opened.rows), opened.model.n_outputs
        return checked_labels(_array(y), n, classes, Path("y"), one_output=opened.one_output)
    labels = predictions(opened.network(opened.rows.astype(np.float32)))
    if not (labels >= 0).all():
        raise DataError(f"the network's outputs for sample {int(labels.argmin())} are no numbers; leave it out")
    return labels


def _decide_at(
    opened: _Opened, labels: npt.NDArray[np.int64], asked: ArrayOptions, features: Features | None
) -> Robustness:
    if is_whole(opened.point_type):
        asked = _of_whole(opened, asked, features)
    rows, target = opened.rows, asked.verdicts.attack.target
    if features is not None:
        decide = _of_rows(opened, asked, features)
    else:
        decide = _of_perturbation(opened, asked) if asked.perturb is not None else _of_balls(opened, asked)
    samples = tuple(
        _verdict(place, label, decide(rows[place], label))
        for place, label in enumerate(labels.tolist())
        if label != target
    )
    return Robustness(asked.eps.value, samples, opened.judge)


def _of_whole(opened: _Opened, asked: ArrayOptions, features: Features | None) -> ArrayOptions:
    """Return what is asked of a network that reads whole numbers, within their range."""
    if asked.perturb is not None or asked.norm != "linf":
        raise OptionError(f"the network reads {opened.point_type.name}: ask for eps alone, or for features")
    if features is not None:
        refuse_fractions(features, "the network", opened.point_type)
    check_whole(opened.rows, opened.point_type)
    return replace(asked, preprocessing=range_of(opened.point_type, asked.preprocessing, "the network"))


def _of_balls(opened: _Opened, asked: ArrayOptions) -> Callable[[FloatArray, int], Result]:
    """Return what decides a sample with a label over the box or ball around it."""
    if asked.norm != "linf":
        return _of_norm(opened, asked, asked.norm)
    rows, options, radius = opened.rows, asked.verdicts, asked.eps
    check_eps_units(
        (radius,), float(rows.min()), float(rows.max()), asked.preprocessing.bounds, whole=is_whole(opened.point_type)
    )
    lo, hi = asked.preprocessing.bounds or (None, None)
    arithmetic = _arithmetic(opened, options)

    def decide(row: FloatArray, label: int) -> Result:
        box = opened.readable(Box.around(row, radius.value, valid_lo=lo, valid_hi=hi))
        return decide_sample(opened.model, opened.network, row, label, box, options, arithmetic=arithmetic)

    return decide


def _arithmetic(opened: _Opened, options: Options) -> Arithmetic:
    """Return what verdicts are asked for. Raises OptionError where the network computes in other floats."""
    if options.arithmetic == "real":
        return None
    arithmetic = opened.bounds()
    if isinstance(arithmetic, FloatMargins) and arithmetic.written.arithmetic.name != options.arithmetic:
        own = arithmetic.written.arithmetic.name
        raise OptionError(f"the network computes in {own}; ask for arithmetic={own!r}, or 'real'")
    return arithmetic


def _of_rows(opened: _Opened, asked: ArrayOptions, features: Features) -> Callable[[FloatArray, int], Result]:
    """Return what decides a sample with a label over the valid rows around it."""
    options, arithmetic = asked.verdicts, _arithmetic(opened, asked.verdicts)

    def decide(row: FloatArray, label: int) -> Result:
        own = row.astype(np.float32).astype(np.float64)  # rows are numbers that the network reads
        cell = features.cell(own, asked.eps.value, protected=False)
        model, network = opened.model, opened.network
        return Rows(model, network, own, label, cell, options, options.budget, arithmetic).decide()

    return decide


def _of_norm(opened: _Opened, asked: ArrayOptions, norm: Norm) -> Callable[[FloatArray, int], Result]:
    """Return what decides a sample with a label over the ball around it. Raises OptionError where nothing does."""
    reads_floats = not (is_coarse(opened.point_type) or is_whole(opened.point_type))
    if not (opened.model.is_feed_forward and reads_floats):
        raise OptionError(f"norm {norm} is for networks without loops that read float32 or finer")
    lo, hi = asked.preprocessing.bounds or (None, None)

    def decide(row: FloatArray, label: int) -> Result:
        ball = NormBall.around(row, asked.eps.value, norm, valid_lo=lo, valid_hi=hi)
        return decide_sample(opened.model, opened.network, row, label, ball, asked.verdicts)

    return decide


def _of_perturbation(opened: _Opened, asked: ArrayOptions) -> Callable[[FloatArray, int], Result]:
    """Return what decides a sample with a label over what a perturbation makes of it."""
    perturbation, bounds, factor = asked.perturb, asked.preprocessing.bounds, asked.eps.value
    shape = asked.image_shape or opened.model.input_shape
    assert perturbation is not None
    if math.prod(shape) != opened.model.n_inputs:
        raise OptionError(f"image_shape has {math.prod(shape)} numbers, and an input {opened.model.n_inputs}")

    def decide(row: FloatArray, label: int) -> Result:
        inputs = Perturbed(Around(row, shape, bounds), perturbation, factor)
        return decide_perturbed(opened.model, opened.network, label, inputs, asked.verdicts)

    return decide


def _verdict(place: int, label: int, result: Result) -> SampleVerdict:
    adversarial = becomes = None
    parameters: tuple[float, ...] = ()
    if result.verdict is Verdict.FALSIFIED and result.found is not None:
        becomes = result.found.predicted
        adversarial = result.found.point.copy()
        adversarial.setflags(write=False)
        parameters = result.found.parameters
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
        parameters=parameters,
    )


def _array(values: Any) -> AnyArray:
    """Return an array for an array, a list or a tensor."""
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)


@dataclass(frozen=True, eq=False)
class _Given:
    """What is given as x: one array, or one for each input of the network."""

    arrays: tuple[AnyArray, ...]
    names: tuple[str, ...] = ()
    """Of each array, where they are given by name."""

    @classmethod
    def of(cls, x: Any, features: Features | None) -> _Given:
        if is_frame(x):
            return cls((plain_rows(x) if features is None else rows_of(x, features),))
        if isinstance(x, Mapping):
            return cls(tuple(map(_array, x.values())), tuple(map(str, x)))
        return cls(tuple(map(_array, x)) if isinstance(x, tuple) else (_array(x),))

    def in_order(self, names: Sequence[str]) -> tuple[AnyArray, ...]:
        """Return the arrays in the order of the network's inputs. Raises DataError where they are others."""
        if len(self.arrays) == 1 and not self.names:
            return self.arrays
        if len(names) != len(self.arrays) or (self.names and set(names) != set(self.names)):
            found = f"those of {', '.join(self.names)}" if self.names else str(len(self.arrays))
            raise DataError(f"x must hold one array for each of the network's inputs {', '.join(names)}, not {found}")
        by_name = dict(zip(self.names or names, self.arrays, strict=True))
        return tuple(by_name[name] for name in names)

    def rows(self, model: ImplicitModel) -> FloatArray:
        """Return the samples as rows of the model's input. Raises DataError where they do not fit."""
        parts = {part.name: part.shape for part in model.input_parts}
        arrays = self.in_order(tuple(parts))
        if len(arrays) == 1:
            rows = _rows(arrays[0])
            _check_fit(arrays[0], rows, "model's input", model.input_shape)
            return rows
        found = []
        for array, (name, shape) in zip(arrays, parts.items(), strict=True):
            found.append(_rows(array))
            _check_fit(array, found[-1], f"input {name}", shape)
            if len(found[-1]) != len(found[0]):
                raise DataError(f"x has {len(found[0])} samples of one input and {len(found[-1])} of {name}")
        return np.hstack(found)


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

    rows: FloatArray
    """The samples, shape (n, p)."""
    model: ImplicitModel
    network: Network
    judge: str
    one_output: bool
    """Whether the classes are made of one output by a threshold."""
    point_type: np.dtype[Any]
    """What the network reads."""
    bounds: Callable[[], FloatMargins | Unbounded]
    """Makes what bounds the roundings of its arithmetic."""

    def readable(self, box: Box) -> Box:
        """Return the same set, whose points are those that the network reads as numbers inside it."""
        return readable_box(box, self.point_type, Preprocessing(), self.model.input_shape)


def _opened(model: str | Path | Module | ImplicitModel, given: _Given, threshold: float | None) -> _Opened:
    if isinstance(model, ImplicitModel):
        rows = given.rows(model)
        found, network, read = model_classifier(model, threshold, Path("the model"))
        points, name = np.dtype(np.float32), "the implicit model itself"
        bounds = partial(float_margins_of, model, found, read)
        return _Opened(rows, found, network, name, model.n_outputs == 1, points, bounds)
    if isinstance(model, str | Path):
        subject = subjects.open_subject(Path(model))
    else:
        names = argument_names(model, len(given.arrays))
        for array in given.arrays:
            _rows(array)
        subject = subjects.open_module(model, example_of(given.in_order(names)))
    subject = as_classifier(subject, threshold)
    rows = given.rows(subject.model)
    subjects.check_agreement(subject, rows[:_CHECKED])
    one_output = subject.threshold is not None
    judge = subject.original.name
    bounds = partial(float_margins, subject, Preprocessing())
    return _Opened(rows, subject.model, subject.original, judge, one_output, subject.point_type, bounds)


def _check_fit(array: AnyArray, rows: FloatArray, what: str, shape: tuple[int, ...]) -> None:
    if rows.shape[1] != math.prod(shape):
        raise DataError(
            f"x has samples of shape {array.shape[1:]}, {rows.shape[1]} numbers each, and the {what} {shape} takes "
            f"{math.prod(shape)}",
            code="IDL115",
        )
