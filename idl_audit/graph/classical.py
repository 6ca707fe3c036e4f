"""Classical learning (the domain ai.onnx.ml, as scikit-learn's converters write it) in ONNX's plain operators.

Linear models, scalers and what stands around them are linear maps, a softmax or a sigmoid. Class labels jump and are
not audited: where a file has outputs of floats, its others are left out, and a ZipMap, which makes a dictionary of
every sample's probabilities, hands these on. Trees have no plain form, and are refused by name. Of support vectors the
scores of the pairs of classes are read; how these vote is in the file's own plain operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NoReturn

import numpy as np

from idl_audit.graph.functions import CLASSICAL, Names
from idl_audit.graph.ir import Attribute, Body, Call, Node, Refused, live_nodes, shown
from idl_audit.graph.onnx_contents import Contents
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import UnsupportedModelError

_FLOATS: Final = frozenset({"float16", "bfloat16", "float32", "float64", "undefined"})
_FLOAT: Final = 1
"""TensorProto's number of float32."""
_INT64: Final = 7
_DOUBLE: Final = 11


@dataclass(frozen=True)
class Translated:
    """A file's contents without classical operators, as far as they have a plain form."""

    contents: Contents
    maps: Mapping[str, tuple[int | str, ...]]
    """Output that is a dictionary for every sample -> its keys in the order of the numbers."""
    problems: tuple[str, ...]
    """Uses that have no plain form; operators of which no use has one stay where they are."""


def without_classical(contents: Contents) -> Translated:
    """Return the contents in plain operators, with the outputs that hold floats where there are any."""
    work = _Work(Names.of(contents.body), kinds={value.name: value.dtype for value in contents.inputs})
    maps = {node.outputs[0]: _keys(node) for node in contents.body.nodes if _is_classical(node, contents, "ZipMap")}
    outputs = tuple(replace(v, dtype="float32", shape=None) if v.name in maps else v for v in contents.outputs)
    kept = tuple(value for value in outputs if value.dtype in _FLOATS) or outputs
    wanted = tuple(value.name for value in kept)
    body = replace(contents.body, outputs=wanted)
    needed = {id(node) for node in live_nodes(body.nodes, wanted)}
    for node in body.nodes:
        if not _is_classical(node, contents):
            work.nodes.append(node)
            work.carry_on(node)
        elif id(node) in needed:
            work.translate(node, body)
    constants = MappingProxyType({**body.constants, **work.constants})
    made = replace(body, nodes=tuple(work.nodes), constants=constants)
    return Translated(
        replace(contents, outputs=kept, body=made),
        MappingProxyType({name: keys for name, keys in maps.items() if name in wanted}),
        tuple(work.problems),
    )


def _is_classical(node: Node, contents: Contents, op: str = "") -> bool:
    is_call = isinstance(node, Call) and node.domain == CLASSICAL and node.target not in contents.functions
    return is_call and op in ("", node.op)


def _keys(node: Node) -> tuple[int | str, ...]:
    """Return the classes that a ZipMap names."""
    for name in ("classlabels_int64s", "classlabels_strings"):
        value = node.attributes.get(name)
        if isinstance(value, tuple) and value:
            return tuple(one if isinstance(one, str) else int(one) for one in value)
    return ()


@dataclass
class _Work:
    """The translation of one graph."""

    names: Names
    kinds: Mapping[str, str]
    """Input -> the type of its numbers."""
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, AnyArray] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    sums_to_one: set[str] = field(default_factory=set)
    """Tensors whose rows are positive and sum to one, whatever the input is."""

    def translate(self, node: Node, body: Body) -> None:
        """Put plain nodes in the place of a classical one; one that has none stays."""
        rule = PLAIN.get(node.op)
        if rule is None:
            self.nodes.append(node)
            return
        try:
            rule(node, body, self)
        except UnsupportedModelError as error:
            self.problems.extend(error.problems)
            self.nodes.append(Refused.instead_of(node))

    def carry_on(self, node: Node) -> None:
        """Remember which tensors are probabilities."""
        if node.op in ("Cast", "Identity") and self.sums_to_one.intersection(node.inputs):
            self.sums_to_one.update(node.outputs)

    def constant(self, node: Node, what: str, value: AnyArray) -> str:
        """Add a constant beside a node and return its name."""
        (name,) = self.names.fresh(node.label, [what])
        self.constants[name] = value
        return name

    def add(self, node: Node, op: str, inputs: tuple[str, ...], output: str = "", **attributes: Attribute) -> str:
        """Add a plain node and return the name of its output; the last of a classical node has that one's."""
        made = output or self.names.fresh(node.label, [op])[0]
        name = node.name if output else f"{node.label}/{op}"
        self.nodes.append(Node(op, name, inputs, (made,), MappingProxyType(attributes)))
        return made

    def floats(self, node: Node, name: str) -> str:
        """Return the name of an input as float32, which is what the domain's operators make."""
        return self.add(node, "Cast", (name,), to=_FLOAT)


def _numbers(node: Node, name: str) -> AnyArray:
    value = node.attributes.get(name, ())
    if not isinstance(value, tuple) or not all(isinstance(one, int | float) for one in value):
        _refuse(node, f"has an attribute {name} that is no list of numbers")
    return np.array(value, np.float32)


def _text(node: Node, name: str, default: str) -> str:
    return str(node.attributes.get(name, default))


def _one(node: Node, k: int = 0) -> str:
    """Return the name of input k, which must be there."""
    if len(node.inputs) <= k or not node.inputs[k]:
        _refuse(node, f"lacks its input {k}")
    return node.inputs[k]


def _refuse(node: Node, why: str) -> NoReturn:
    raise UnsupportedModelError([f"{shown(node.op)} node '{shown(node.label)}' {why}"])


# --- one function an operator -----------------------------------------------------------------------------------------


def _scaler(node: Node, body: Body, work: _Work) -> None:
    """y = (x - offset) scale, one number each, or one for each feature."""
    x = work.floats(node, _one(node))
    offset, scale = _numbers(node, "offset"), _numbers(node, "scale")
    if not scale.size or offset.size != scale.size:
        _refuse(node, f"has {offset.size} offsets and {scale.size} scales; as many of both are needed")
    x = work.add(node, "Sub", (x, work.constant(node, "offset", offset)))
    work.add(node, "Mul", (x, work.constant(node, "scale", scale)), node.outputs[0])


def _linear(node: Node, work: _Work, coefficients: AnyArray, intercepts: AnyArray, output: str = "") -> str:
    """y = x W^T + b, W of shape (rows, features)."""
    x = work.floats(node, _one(node))
    weights = work.constant(node, "coefficients", np.ascontiguousarray(coefficients.T))
    if not intercepts.size:
        return work.add(node, "MatMul", (x, weights), output)
    product = work.add(node, "MatMul", (x, weights))
    return work.add(node, "Add", (product, work.constant(node, "intercepts", intercepts)), output)


def _rows(node: Node, n: int) -> tuple[AnyArray, AnyArray]:
    """Return coefficients, shape (n, features), and intercepts, n or none."""
    coefficients, intercepts = _numbers(node, "coefficients"), _numbers(node, "intercepts")
    if n < 1 or not coefficients.size or coefficients.size % n or intercepts.size not in (0, n):
        _refuse(node, f"has {coefficients.size} coefficients and {intercepts.size} intercepts for {n} rows of them")
    return coefficients.reshape(n, -1), intercepts


def _regressor(node: Node, body: Body, work: _Work) -> None:
    """One row of coefficients a target."""
    if _text(node, "post_transform", "NONE") != "NONE":
        _refuse(node, f"ends in {_text(node, 'post_transform', '')}; without a post_transform it can be read")
    targets = node.attributes.get("targets", 1)
    coefficients, intercepts = _rows(node, targets if isinstance(targets, int) else 1)
    _linear(node, work, coefficients, intercepts, node.outputs[0])


def _classifier(node: Node, body: Body, work: _Work) -> None:
    """Scores z = x W^T + b and what becomes of them; one row for two classes stands for both."""
    _check_scores_alone(node, body)
    labels = node.attributes.get("classlabels_ints") or node.attributes.get("classlabels_strings")
    classes = len(labels) if isinstance(labels, tuple) else 1
    n = _numbers(node, "intercepts").size or classes
    coefficients, intercepts = _rows(node, n)
    how = _text(node, "post_transform", "NONE")
    if how not in ("NONE", "LOGISTIC", "SOFTMAX") or (n == 1 and how == "SOFTMAX"):
        _refuse(node, f"ends in {how} of {n} scores; NONE and LOGISTIC can be read, and SOFTMAX of several scores")
    scores = node.outputs[1]
    if n == 1 and classes == 2:
        if how == "NONE" and not _picked_apart(scores, body):
            _refuse(node, _TWO_CLASSIFIERS)
        coefficients, intercepts = _both(coefficients, how), _both(intercepts, how)
        if how == "NONE":
            intercepts = np.array([1, 0], np.float32) + (intercepts if intercepts.size else np.zeros(2, np.float32))
    opposite = np.array_equal(coefficients[:1], -coefficients[1:]) and np.array_equal(intercepts[:1], -intercepts[1:])
    if how == "SOFTMAX" or (how == "LOGISTIC" and opposite):
        work.sums_to_one.add(scores)
    if how == "NONE":
        _linear(node, work, coefficients, intercepts, scores)
    elif how == "SOFTMAX":
        work.add(node, "Softmax", (_linear(node, work, coefficients, intercepts),), scores, axis=1)
    else:
        work.add(node, "Sigmoid", (_linear(node, work, coefficients, intercepts),), scores)


_TWO_CLASSIFIERS: Final = (
    "gives (1 - z, z) for its one score z, the larger of which is not the class of its label (z > 0): give it a "
    "sigmoid (post_transform LOGISTIC), or make z alone the output"
)


def _picked_apart(scores: str, body: Body) -> bool:
    """Return whether single scores are taken from the pair, and nobody compares the two."""
    readers = {node.op for node in live_nodes(body.nodes, body.outputs) if scores in node.reads}
    return scores not in body.outputs and readers <= {"ArrayFeatureExtractor", "Gather", "Slice"}


def _both(row: AnyArray, how: str) -> AnyArray:
    """Return the rows of both classes: (-z, z) under a sigmoid, (1 - z, z) without, the 1 left to the intercepts."""
    return np.concatenate([-row, row])


_LABELS: Final = "makes class labels, which jump; make its scores, the second output, the output of the model"


def _check_scores_alone(node: Node, body: Body) -> None:
    """Refuse a classifier whose label is read, or that has no scores."""
    if len(node.outputs) < 2 or not node.outputs[1]:
        _refuse(node, _LABELS)
    read = {name for other in live_nodes(body.nodes, body.outputs) for name in other.reads}
    if node.outputs[0] in read.union(body.outputs):
        _refuse(node, _LABELS)


def _normalizer(node: Node, body: Body, work: _Work) -> None:
    """Rows divided by their L1 or L2 norm; probabilities that sum to one already are handed on."""
    norm = _text(node, "norm", "MAX")
    if norm not in _POWERS:
        _refuse(
            node, f"divides by the {norm} norm of its input, the largest of its numbers; L1 and L2 norms can be read"
        )
    if norm == "L1" and _one(node) in work.sums_to_one:
        work.add(node, "Identity", (_one(node),), node.outputs[0])
        work.sums_to_one.add(node.outputs[0])
        return
    work.add(node, "LpNormalization", (work.floats(node, _one(node)),), node.outputs[0], axis=-1, p=_POWERS[norm])


_POWERS: Final[Mapping[str, int]] = MappingProxyType({"L1": 1, "L2": 2})
"""Norm of a Normalizer -> p of the plain operator."""


def _extractor(node: Node, body: Body, work: _Work) -> None:
    """Columns at constant places."""
    indices = {**body.constants, **work.constants}.get(_one(node, 1))
    if indices is None:
        _refuse(node, "picks entries at places that depend on the input, which jumps; constant places can be read")
    places = work.constant(node, "indices", indices.reshape(-1).astype(np.int64))
    work.add(node, "Gather", (_one(node), places), node.outputs[0], axis=-1)


def _zip_map(node: Node, body: Body, work: _Work) -> None:
    work.add(node, "Identity", (_one(node),), node.outputs[0])


def _vectorizer(node: Node, body: Body, work: _Work) -> None:
    """Features side by side."""
    work.add(node, "Concat", tuple(work.floats(node, name) for name in node.inputs if name), node.outputs[0], axis=1)


def _imputer(node: Node, body: Body, work: _Work) -> None:
    """What only replaces NaN changes no number."""
    replaced = node.attributes.get("replaced_value_float")
    if not isinstance(replaced, float) or not math.isnan(replaced):
        _refuse(node, "replaces a number by another one, which jumps; one that replaces NaN alone can be read")
    work.add(node, "Identity", (_one(node),), node.outputs[0])


def _binarizer(node: Node, body: Body, work: _Work) -> None:
    """y = 1 where x > threshold, else 0: a jump."""
    threshold = node.attributes.get("threshold", 0.0)
    if not isinstance(threshold, int | float) or not math.isfinite(threshold):
        _refuse(node, "has a threshold that is no number")
    limit = work.constant(node, "threshold", np.array(threshold, np.float32))
    above = work.add(node, "Greater", (work.floats(node, _one(node)), limit))
    work.add(node, "Cast", (above,), node.outputs[0], to=_FLOAT)


def _one_hot(node: Node, body: Body, work: _Work) -> None:
    """y_k = 1 where the whole part of x is category k, else 0, (N, C) -> (N, C, K): both sides of it are jumps."""
    categories = node.attributes.get("cats_int64s", ())
    if node.attributes.get("cats_strings") or not isinstance(categories, tuple) or not categories:
        _refuse(node, "reads text, which no small change moves: audit the model behind it")
    if not node.attributes.get("zeros", 1):
        _refuse(
            node,
            "fails at categories that it does not know, so that a set of inputs may have no answer; fit "
            'OneHotEncoder(handle_unknown="ignore"), which gives zeros there',
        )
    numbers = np.array([one for one in categories if isinstance(one, int)], np.int64)
    if len(set(numbers.tolist())) != len(categories) or (np.abs(numbers) >= _MOST_CATEGORY).any():
        _refuse(node, f"has categories that are there twice, or beyond {_MOST_CATEGORY}")
    source, first, last = _read_by(node, body, work, numbers)
    each = work.add(node, "Reshape", (source, work.constant(node, "shape", np.array([0, 0, 1], np.int64))))
    sides = (("Greater", first), ("Less", last))
    found = tuple(work.add(node, op, (each, work.constant(node, f"{op} limits", ends))) for op, ends in sides)
    work.add(node, "Cast", (work.add(node, "And", found),), node.outputs[0], to=_FLOAT)


def _read_by(node: Node, body: Body, work: _Work, numbers: AnyArray) -> tuple[str, AnyArray, AnyArray]:
    """Return a tensor, and between which numbers it lies where its whole part is each category.

    Of whole numbers these are the halves on both sides. An input of float32 numbers is compared with what lies half-way
    between a whole number and the float32 number next to it: a real input is read as the nearest float32 number, and
    whole numbers themselves lie on no jump.
    """
    moving = _moved_input(node, body, work)
    if moving is None:
        whole = work.floats(node, work.add(node, "Cast", (_one(node),), to=_INT64))
        return whole, (numbers - 0.5).astype(np.float32), (numbers + 0.5).astype(np.float32)
    least = np.where(numbers > 0, numbers, numbers - 1).astype(np.float32)  # the ends, towards 0 from there
    most = np.where(numbers >= 0, numbers + 1, numbers).astype(np.float32)
    inward = np.float32(-np.inf), np.float32(np.inf)
    first = np.where(numbers > 0, _half_way(least, inward[0]), _half_way(least, inward[1]))
    last = np.where(numbers >= 0, _half_way(most, inward[0]), _half_way(most, inward[1]))
    return work.add(node, "Cast", (moving,), to=_DOUBLE), first, last


def _half_way(numbers: AnyArray, towards: np.float32) -> AnyArray:
    """Return what lies in the middle between float32 numbers and their neighbours on one side, as float64."""
    return np.asarray((numbers.astype(np.float64) + np.nextafter(numbers, towards).astype(np.float64)) / 2)


def _moved_input(node: Node, body: Body, work: _Work) -> str | None:
    """Return the tensor whose whole parts a node reads, of float32 inputs that are moved at most; None for another."""
    makers = {name: other for other in body.nodes for name in other.outputs}
    source = _one(node)
    while source in makers and makers[source].op == "Cast" and makers[source].attributes.get("to") in (_FLOAT, _INT64):
        source = makers[source].inputs[0]
    name = source
    while name in makers and (makers[name].op in _MOVES or makers[name].attributes.get("to") == _FLOAT):
        name = makers[name].inputs[0]
    return source if name not in makers and work.kinds.get(name) == "float32" else None


_MOVES: Final = frozenset({"ArrayFeatureExtractor", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze"})


_MOST_CATEGORY: Final = 2**22
"""Numbers between categories are float32 ones."""


def _kernel_regressor(node: Node, body: Body, work: _Work) -> None:
    """y = sum_i a_i K(x, s_i) + rho, the file's own numbers.

    Without support vectors, the coefficients are those of the inputs.
    """
    how, kernel = _text(node, "post_transform", "NONE"), _text(node, "kernel_type", "LINEAR")
    if how != "NONE" or node.attributes.get("one_class", 0):
        _refuse(node, "ends in a jump or a post_transform; the regressor itself (SVR) can be read")
    coefficients, rho = _numbers(node, "coefficients"), _numbers(node, "rho")
    vectors, n = _numbers(node, "support_vectors"), node.attributes.get("n_supports", 0)
    if rho.size != 1 or not coefficients.size:
        _refuse(node, f"has {coefficients.size} coefficients and {rho.size} numbers rho; some and 1 are needed")
    if not n and kernel == "LINEAR":
        _linear(node, work, coefficients[None], rho, node.outputs[0])
        return
    if not isinstance(n, int) or n != coefficients.size or not vectors.size or vectors.size % n:
        _refuse(node, f"has {vectors.size} numbers and {coefficients.size} coefficients for {n} support vectors")
    similar = _similar(node, work, vectors.reshape(n, -1))
    total = work.add(node, "MatMul", (similar, work.constant(node, "coefficients", coefficients[:, None])))
    work.add(node, "Add", (total, work.constant(node, "rho", rho)), node.outputs[0])


def _kernel_classifier(node: Node, body: Body, work: _Work) -> None:
    """Scores of the pairs of classes i < j: sums over the support vectors of both, (N, pairs); what they vote is apart.

    z_ij = sum over vectors s of i of a_(j-1)s K(x, s) + sum over those of j of a_is K(x, s) + rho_ij
    """
    _check_scores_alone(node, body)
    how, kinds = _text(node, "post_transform", "NONE"), ("classlabels_ints", "classlabels_strings")
    labels = next((value for kind in kinds if isinstance(value := node.attributes.get(kind), tuple) and value), ())
    if node.attributes.get("prob_a") or how != "NONE":
        _refuse(node, "makes probabilities by iterating; fit it with probability=False (SVC's default)")
    per_class = node.attributes.get("vectors_per_class", ())
    counts = [one for one in per_class if isinstance(one, int) and one >= 0] if isinstance(per_class, tuple) else []
    classes, n = len(labels), sum(counts)
    if classes == 2:
        _refuse(node, _TWO_BY_KERNELS)
    coefficients, rho, vectors = (_numbers(node, name) for name in ("coefficients", "rho", "support_vectors"))
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    sizes = (coefficients.size, len(counts), rho.size)
    if not n or classes < 2 or sizes != ((classes - 1) * n, classes, len(pairs)) or vectors.size % n:
        _refuse(
            node,
            f"has {vectors.size} numbers of support vectors and {coefficients.size} coefficients that do not "
            f"fit {classes} classes and {n} of them",
        )
    weights, owner = np.zeros((n, len(pairs)), np.float32), np.repeat(np.arange(classes), counts)
    rows = coefficients.reshape(classes - 1, n)
    for place, (i, j) in enumerate(pairs):
        for own, row in ((i, j - 1), (j, i)):
            weights[owner == own, place] = rows[row, owner == own]
    similar = _similar(node, work, vectors.reshape(n, -1))
    total = work.add(node, "MatMul", (similar, work.constant(node, "coefficients", weights)))
    work.add(node, "Add", (total, work.constant(node, "rho", rho)), node.outputs[1])


_TWO_BY_KERNELS: Final = (
    "gives (-z, z) for the score z of its two classes, the larger of which is not the class of its label (z > 0 is the "
    "first): give an SVR fitted to -1 and 1, or LinearSVC"
)


def _similar(node: Node, work: _Work, rows: AnyArray) -> str:
    """Return K(x, s_i) for each row s_i, (N, p) -> (N, n).

    x . s (LINEAR), exp(-gamma |x - s|^2) (RBF), (gamma x . s + c)^d (POLY), tanh(gamma x . s + c) (SIGMOID).
    """
    kernel, x = _text(node, "kernel_type", "LINEAR"), work.floats(node, _one(node))
    if kernel == "RBF":
        return _bells(node, work, x, rows)
    vectors = work.constant(node, "vectors", np.ascontiguousarray(rows.T))
    if kernel == "LINEAR":
        return work.add(node, "MatMul", (x, vectors))
    parameters = _numbers(node, "kernel_params")
    if kernel not in ("POLY", "SIGMOID") or parameters.size < _PARAMETERS:
        _refuse(
            node, f"has the kernel {shown(kernel)}, or no numbers for it; LINEAR, RBF, POLY and SIGMOID can be read"
        )
    gamma, _, degree = (float(one) for one in parameters[:_PARAMETERS])
    linear = work.add(node, "Gemm", (x, vectors, work.constant(node, "c", parameters[1:2])), alpha=gamma)
    if kernel == "SIGMOID":
        return work.add(node, "Tanh", (linear,))
    if degree != round(degree) or not 1 <= degree <= _MOST_DEGREES:
        _refuse(node, f"has a kernel of degree {degree:g}; whole degrees from 1 to {_MOST_DEGREES} can be read")
    return work.add(node, "Pow", (linear, work.constant(node, "degree", parameters[2])))


_PARAMETERS: Final = 3
"""gamma, c, degree."""
_MOST_DEGREES: Final = 9


def _bells(node: Node, work: _Work, x: str, rows: AnyArray) -> str:
    """Return exp(-gamma |x - s_i|^2) for each row s_i, (N, p) -> (N, n): nothing is multiplied out."""
    parameters = _numbers(node, "kernel_params")
    if not parameters.size or not parameters[0] > 0:
        _refuse(node, "has an RBF kernel without a positive gamma")
    p = rows.shape[1]
    shape = work.constant(node, "shape", np.array([-1, 1, p], np.int64))
    apart = work.add(node, "Sub", (work.add(node, "Reshape", (x, shape)), work.constant(node, "vectors", rows)))
    ones = work.constant(node, "ones", np.ones((p, 1), np.float32))
    squares = work.add(node, "MatMul", (work.add(node, "Mul", (apart, apart)), ones))
    flat = work.add(node, "Reshape", (squares, work.constant(node, "flat", np.array([-1, len(rows)], np.int64))))
    gamma = work.constant(node, "gamma", -parameters[:1])
    return work.add(node, "Exp", (work.add(node, "Mul", (flat, gamma)),))


PLAIN: Final[Mapping[str, Callable[[Node, Body, _Work], None]]] = MappingProxyType(
    {
        "ArrayFeatureExtractor": _extractor,
        "Binarizer": _binarizer,
        "FeatureVectorizer": _vectorizer,
        "Imputer": _imputer,
        "LinearClassifier": _classifier,
        "LinearRegressor": _regressor,
        "Normalizer": _normalizer,
        "OneHotEncoder": _one_hot,
        "SVMClassifier": _kernel_classifier,
        "SVMRegressor": _kernel_regressor,
        "Scaler": _scaler,
        "ZipMap": _zip_map,
    }
)
"""Classical operators with a plain form."""
