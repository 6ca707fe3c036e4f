"""Models of scikit-learn: linear ones and what stands around them are read, everything else is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from idl_audit.commands.shared.points import random_inputs
from idl_audit.commands.shared.subject import check_agreement, open_subject
from idl_audit.graph.classical import PLAIN
from idl_audit.graph.functions import OF_CLASSICAL
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.values.errors import UnsupportedModelError
from tests.shared.command_line import ROOT, run

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
RNG = np.random.default_rng(31)


def ml(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), domain="ai.onnx.ml", **attributes)


def saved(
    folder: Path,
    nodes: list[onnx.NodeProto],
    outputs: dict[str, int] | None = None,
    constants: dict[str, Any] | None = None,
    *,
    n: int = 4,
    opset: int = 17,
) -> Path:
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in (outputs or {"y": FLOAT}).items()]
    entry = helper.make_tensor_value_info("x", FLOAT, [None, n])
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", [entry], infos, tensors)
    versions = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=8), path)
    return path


def numbers(n: int) -> list[float]:
    return RNG.normal(size=n).astype(np.float32).tolist()


def classifier(rows: int, how: str, **more: Any) -> onnx.NodeProto:
    labels = {"classlabels_ints": list(range(max(rows, 2)))} | more
    return ml(
        "LinearClassifier",
        "x",
        "l y",
        coefficients=numbers(4 * rows),
        intercepts=numbers(rows),
        post_transform=how,
        **labels,
    )


def kernels(kind: str, *, gamma: float = 0.0, **more: Any) -> onnx.NodeProto:
    given = {"coefficients": numbers(3), "support_vectors": numbers(12), "rho": numbers(1), "n_supports": 3}
    return ml("SVMRegressor", "x", kernel_type=kind, **({"kernel_params": [gamma, 0.0, 3.0]} | given | more))


def pairs(kind: str, counts: tuple[int, ...] = (2, 1, 3), **more: Any) -> onnx.NodeProto:
    """A classifier by kernels, a few support vectors for each class."""
    n, q = sum(counts), len(counts)
    given = {"kernel_type": kind, "kernel_params": [0.3, 0.7, 3.0], "vectors_per_class": list(counts)}
    given |= {"coefficients": numbers((q - 1) * n), "support_vectors": numbers(4 * n), "rho": numbers(q * (q - 1) // 2)}
    return ml("SVMClassifier", "x", "l y", classlabels_ints=list(range(q)), **(given | more))


def one_hot(**more: Any) -> onnx.NodeProto:
    return ml("OneHotEncoder", "x", **({"cats_int64s": [1, -1, 0, 5], "zeros": 1} | more))


READ = {
    "Scaler": [ml("Scaler", "x", offset=numbers(4), scale=numbers(4))],
    "Scaler one": [ml("Scaler", "x", offset=numbers(1), scale=numbers(1))],
    "LinearRegressor": [ml("LinearRegressor", "x", coefficients=numbers(4), intercepts=numbers(1))],
    "LinearRegressor three": [
        ml("LinearRegressor", "x", coefficients=numbers(12), intercepts=numbers(3), targets=3),
    ],
    "LinearClassifier": [classifier(3, "NONE")],
    "LinearClassifier softmax": [classifier(3, "SOFTMAX")],
    "LinearClassifier sigmoids": [classifier(3, "LOGISTIC")],
    "LinearClassifier one row": [classifier(1, "NONE"), ml("ArrayFeatureExtractor", "y places", "z")],
    "LinearClassifier one sigmoid": [classifier(1, "LOGISTIC")],
    "LinearClassifier names": [classifier(2, "SOFTMAX", classlabels_ints=None, classlabels_strings=["no", "yes"])],
    "Binarizer": [ml("Binarizer", "x", threshold=0.25)],
    "SVMRegressor": [kernels("RBF", gamma=0.5)],
    "SVMRegressor linear": [kernels("LINEAR")],
    "SVMRegressor polynomial": [kernels("POLY", gamma=0.5)],
    "SVMRegressor sigmoid": [kernels("SIGMOID", gamma=0.5)],
    "SVMClassifier": [pairs("RBF")],
    "SVMClassifier linear": [pairs("LINEAR", (1, 1, 2, 3))],
    "SVMClassifier polynomial": [pairs("POLY")],
    "SVMClassifier parabola": [pairs("POLY", kernel_params=[0.3, -0.7, 2.0])],
    "SVMClassifier sigmoid": [pairs("SIGMOID")],
    "OneHotEncoder": [one_hot()],
    "OneHotEncoder of whole numbers": [
        helper.make_node("Cast", ["x"], ["n"], to=INT64),
        ml("OneHotEncoder", "n", cats_int64s=[0, 2]),
    ],
    "SVMRegressor coefficients": [
        ml(
            "SVMRegressor",
            "x",
            coefficients=numbers(4),
            rho=numbers(1),
            n_supports=0,
            kernel_type="LINEAR",
            kernel_params=[0.0, 0.0, 0.0],
        )
    ],
    "ArrayFeatureExtractor": [ml("ArrayFeatureExtractor", "x places")],
    "FeatureVectorizer": [
        helper.make_node("Relu", ["x"], ["h"]),
        ml("FeatureVectorizer", "x h", inputdimensions=[4, 4]),
    ],
    "Imputer": [ml("Imputer", "x", imputed_value_floats=[0.5], replaced_value_float=float("nan"))],
    "Normalizer": [
        classifier(3, "SOFTMAX"),
        ml("Normalizer", "y", "z", norm="L1"),
    ],
    "Normalizer behind sigmoids": [classifier(3, "LOGISTIC"), ml("Normalizer", "y", "z", norm="L1")],
    "Normalizer of the input": [ml("Normalizer", "x", norm="L1")],
    "Normalizer to unit length": [ml("Normalizer", "x", norm="L2")],
    "ZipMap": [classifier(3, "LOGISTIC"), ml("ZipMap", "y", "z", classlabels_int64s=[0, 1, 2])],
}


@pytest.mark.parametrize("opset", [9, 12, 13, 21])
@pytest.mark.parametrize("name", READ)
def test_a_classical_operator_is_what_onnxruntime_makes_of_it(tmp_path, name, opset):
    last = [one for one in READ[name][-1].output if one][-1]
    labels = {"l": INT64} if "l" in READ[name][0].output and "names" not in name else {}
    path = saved(tmp_path, READ[name], {**labels, last: FLOAT}, {"places": np.array([[1, 0]])}, opset=opset)
    if name == "ZipMap":  # a list of dictionaries, as converters declare it
        model = onnx.load(path)
        del model.graph.output[:]
        value = helper.make_tensor_type_proto(FLOAT, [])
        kind = helper.make_sequence_type_proto(helper.make_map_type_proto(INT64, value))
        model.graph.output.append(helper.make_value_info("z", kind))
        onnx.save(model, path)
    subject = open_subject(path)
    found = check_agreement(subject, random_inputs(4))
    assert found.argmax_agreement == found.n
    assert subject.output == last


def test_every_operator_that_is_read_was_tried_and_is_documented():
    assert {name.split()[0] for name in READ} == set(PLAIN)
    page = (ROOT / "docs/operators.md").read_text(encoding="utf-8")
    assert all(op in page for op in PLAIN)


@pytest.mark.parametrize("op", OF_CLASSICAL)
def test_what_has_no_plain_form_is_refused_by_name(tmp_path, op):
    outputs = "l y" if op.endswith("Classifier") else "y"
    path = saved(tmp_path, [ml(op, "x", outputs), helper.make_node("Sin", ["y"], ["h"]), *hardmax("h")], {"z": FLOAT})
    with pytest.raises(UnsupportedModelError) as caught:
        open_subject(path)
    first, *others = caught.value.problems
    assert f"{op} node" in first
    assert OF_CLASSICAL[op] in first
    assert any(problem.startswith("Hardmax node 'z' jumps") for problem in others)  # nothing hides behind it


def hardmax(source: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Hardmax", [source], ["z"], name="z")]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([classifier(3, "PROBIT")], "ends in PROBIT"),
        ([classifier(3, "SOFTMAX_ZERO")], "ends in SOFTMAX_ZERO"),
        ([classifier(1, "SOFTMAX")], "ends in SOFTMAX of 1 scores"),
        ([classifier(1, "NONE")], "not the class of its label"),
        ([classifier(1, "NONE"), ml("ZipMap", "y", "z", classlabels_int64s=[0, 1])], "not the class of its label"),
        ([ml("Normalizer", "x", norm="MAX")], "divides by the MAX norm"),
        ([kernels("COSINE", gamma=0.5)], "has the kernel COSINE"),
        ([kernels("POLY", gamma=0.5, kernel_params=[0.5, 0.0, 2.5])], "of degree 2.5"),
        ([pairs("RBF", (2, 2))], "not the class of its label"),
        ([pairs("RBF", prob_a=numbers(3), prob_b=numbers(3))], "probability=False"),
        ([pairs("RBF", post_transform="SOFTMAX")], "probability=False"),
        ([pairs("RBF", vectors_per_class=[2, 1, 4])], "do not fit 3 classes"),
        ([pairs("RBF", rho=numbers(2))], "do not fit 3 classes"),
        ([one_hot(zeros=0)], 'handle_unknown="ignore"'),
        ([one_hot(cats_int64s=[1, 2, 1])], "there twice"),
        ([one_hot(cats_int64s=None, cats_strings=["a", "b"])], "reads text"),
        ([kernels("RBF", gamma=0.0)], "without a positive gamma"),
        ([kernels("RBF", gamma=0.5, one_class=1)], "ends in a jump"),
        ([kernels("RBF", gamma=0.5, n_supports=5)], "for 5 support vectors"),
        ([kernels("RBF", gamma=0.5, rho=[0.5, 0.5])], "2 numbers rho"),
        ([ml("Scaler", "x", offset=[0.0], scale=[1.0, 2.0])], "1 offsets and 2 scales"),
        ([ml("LinearRegressor", "x", coefficients=numbers(5), targets=2)], "5 coefficients"),
        ([ml("LinearRegressor", "x", coefficients=numbers(4), post_transform="PROBIT")], "ends in PROBIT"),
        ([ml("Imputer", "x", imputed_value_floats=[0.5], replaced_value_float=0.0)], "replaces a number"),
        ([ml("LinearClassifier", "x", "y", coefficients=numbers(4), intercepts=numbers(1))], "makes class labels"),
    ],
)
def test_uses_that_are_not_linear_are_refused(tmp_path, nodes, words):
    last = nodes[-1].output[-1]
    with pytest.raises(UnsupportedModelError, match=words):
        open_subject(saved(tmp_path, nodes, {last: FLOAT}))


def test_labels_are_left_out_where_there_are_scores(tmp_path):
    path = saved(tmp_path, [classifier(3, "NONE")], {"l": INT64, "y": FLOAT})
    assert [value.name for value in read_onnx(path).outputs] == ["y"]
    with pytest.raises(UnsupportedModelError, match="makes class labels, which jump"):
        open_subject(saved(tmp_path, [classifier(3, "NONE")], {"l": INT64}))


def test_scores_that_labels_are_made_of_do_not_read_them(tmp_path):
    """A label that a score is made of again is refused, and not overlooked."""
    again = [helper.make_node("Cast", ["l"], ["c"], to=FLOAT), helper.make_node("Neg", ["c"], ["z"])]
    with pytest.raises(UnsupportedModelError, match="makes class labels"):
        open_subject(saved(tmp_path, [classifier(3, "NONE"), *again], {"z": FLOAT}))


# --- scikit-learn itself ----------------------------------------------------------------------------------------------


def pipelines() -> dict[str, Any]:
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Binarizer, MinMaxScaler, StandardScaler
    from sklearn.svm import SVR, LinearSVC

    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "network": make_pipeline(SimpleImputer(), MinMaxScaler(), PCA(3), MLPClassifier((5,), max_iter=300)),
        "hinge": SGDClassifier(random_state=0),
        "support vectors": LinearSVC(),
        "discriminant": LinearDiscriminantAnalysis(),
        "ridge": Ridge(),
        "bells": make_pipeline(StandardScaler(), SVR(C=0.5)),
        "above the mean": make_pipeline(StandardScaler(), Binarizer(), LogisticRegression()),
    }


def data() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return x.astype(np.float32), y


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", pipelines())
def test_a_pipeline_of_scikit_learn_predicts_as_it_does(tmp_path, name, classes):
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    x, y = data()
    x, y = x[y < classes], y[y < classes]
    model = pipelines()[name].fit(x, y)
    (tmp_path / "m.onnx").write_bytes(to_onnx(model, x[:1]).SerializeToString())
    subject = open_subject(tmp_path / "m.onnx")
    check_agreement(subject, x[:20].astype(np.float64))
    found = subject.model(x.astype(np.float64))
    if name in ("ridge", "bells"):
        np.testing.assert_allclose(found[:, 0], model.predict(x), atol=1e-4)
    else:
        classes_found = found.argmax(1) if found.shape[1] > 1 else found[:, 0] > 0
        np.testing.assert_array_equal(classes_found, model.predict(x))


@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_with_an_input_of_doubles_is_read(tmp_path):
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    x, y = data()
    model = pipelines()["logistic"].fit(x, y)
    (tmp_path / "m.onnx").write_bytes(
        to_onnx(model, x[:1].astype(np.float64), options={"zipmap": False}).SerializeToString()
    )
    subject = open_subject(tmp_path / "m.onnx")
    assert subject.point_type == np.float64
    check_agreement(subject, x[:20].astype(np.float64))
    np.testing.assert_array_equal(subject.model(x.astype(np.float64)).argmax(1), model.predict(x))


@pytest.mark.filterwarnings("ignore")
def test_columns_of_a_table_are_inputs_of_their_own(tmp_path, monkeypatch):
    """A converter gives every column of a data frame an input; the table's headings say which is which."""
    skl2onnx = pytest.importorskip("skl2onnx")
    x, y = data()
    model = pipelines()["logistic"].fit(x, y)
    names = ["sepal", "width", "petal", "breadth"]
    types = [(name, skl2onnx.common.data_types.FloatTensorType([None, 1])) for name in names]
    proto = skl2onnx.convert_sklearn(model, initial_types=types)
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(proto.SerializeToString())
    order = [2, 0, 3, 1]
    lines = [",".join(names[k] for k in order) + ",label"]
    lines += [",".join(str(row[k]) for k in order) + f",{label}" for row, label in zip(x, y, strict=True)]
    Path("d.csv").write_text("\n".join(lines))
    report = run("certify", "m.onnx", "-d", "d.csv", "-e", "0.001", "--limit", "5", "-f", "json").report
    assert report.summary.per_eps[0].certified == 5
    assert [one.name for one in report.model.inputs] == names
    predicted = run("predict", "m.onnx", "-d", "d.csv", "-f", "json").report.predictions
    assert [one.predicted for one in predicted] == model.predict(x).tolist()
