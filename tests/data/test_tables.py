"""Text of other programs: one table of files with what they hold, one of files with what is said about them."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idl_audit.config.files import read_configuration
from idl_audit.config.finding import find_configuration
from idl_audit.data.groups import read_groups
from idl_audit.data.image_folder import list_images
from idl_audit.data.instances import read_instances
from idl_audit.data.radii import read_radii
from idl_audit.data.samples import read_samples
from idl_audit.data.vectors import read_objective
from idl_audit.data.vnnlib import parse_vnnlib, read_vnnlib
from idl_audit.values.errors import DataError, InvalidInputError

X = [[0.9, 0.2, 0.1], [0.1, 0.8, 0.3]]
Y = [0, 1]


def comma(text: str) -> str:
    return text.replace(".", ",")


PLAIN = "0.9,0.2,0.1\n0.1,0.8,0.3\n"
LABELLED = "a,b,c,label\n0.9,0.2,0.1,0\n0.1,0.8,0.3,1\n"

READ: dict[str, tuple[str, list[int] | None]] = {
    "commas": (PLAIN, None),
    "commas and blanks": (PLAIN.replace(",", ", "), None),
    "commas and tabs": (PLAIN.replace(",", ",\t"), None),
    "blanks": (PLAIN.replace(",", " "), None),
    "aligned blanks": ("  0.9   0.2 0.1\n  0.1\t0.8  0.3  \n", None),
    "numpy.savetxt": ("9e-01 2.0e-01 1e-1\n1.000000000000000056e-01 8e-01 3.0E-01\n", None),
    "tabs": (PLAIN.replace(",", "\t"), None),
    "semicolons": (PLAIN.replace(",", ";"), None),
    "semicolons with decimal commas": (comma(PLAIN.replace(",", ";")), None),
    "tabs with decimal commas": (comma(PLAIN.replace(",", "\t")), None),
    "blanks with decimal commas": (comma(PLAIN.replace(",", " ")), None),
    "three digits behind a leading zero": ("0,900;0,200;0,100\n0,100;0,800;0,300\n", None),
    "three digits beside others": ("0,9;0,2;0,1\n0,1;0,8;0,3\n9,125;1,250;3,5\n", None),
    "one decimal comma among whole numbers": ("0,5;1;2\n3;4;5\n", None),
    "quoted numbers": ('"0.9","0.2","0.1"\n"0.1", "0.8", "0.3"\n', None),
    "quoted decimal commas": ('"0,9","0,2","0,1"\n"0,1","0,8","0,3"\n', None),
    "exponents of Fortran": ("9D-1 2.0d-01 .1D+0\n1D-1 8D-1 3D-1\n", None),
    "windows": (PLAIN.replace("\n", "\r\n"), None),
    "old mac": (PLAIN.replace("\n", "\r"), None),
    "no last line end": (PLAIN.strip(), None),
    "empty lines": (f"\n\n{PLAIN}\n \n\n", None),
    "empty rows at the end": (f"{PLAIN},,\n,,\n", None),
    "separators at the end of lines": (PLAIN.replace("\n", ",\n"), None),
    "comments": (f"# made by hand\n{PLAIN}# the end\n", None),
    "excel": (f"sep=;\n{PLAIN.replace(',', ';')}", None),
    "excel with decimal commas": (f"sep=;\r\n{comma(PLAIN.replace(',', ';'))}", None),
    "quoted sep of excel": (f'"sep=,"\n{PLAIN}', None),
    "heading": (f"a,b,c\n{PLAIN}", None),
    "heading of numpy": (f"# a b c\n{PLAIN.replace(',', ' ')}", None),
    "heading of numbers and label": ("0,1,2,label\n0.9,0.2,0.1,0\n0.1,0.8,0.3,1\n", Y),
    "heading of counted columns": (f"0,1,2\n{PLAIN}", None),
    "heading with commas": ("a (m, s);b;c\n0,9;0,2;0,1\n0,1;0,8;0,3\n", None),
    "label": (LABELLED, Y),
    "labels": (LABELLED.replace("label", "Labels"), Y),
    "y": (LABELLED.replace("label", "y"), Y),
    "target": (LABELLED.replace("label", "TARGET"), Y),
    "class": (LABELLED.replace("label", '"class"'), Y),
    "label beside y": (LABELLED.replace("b,c", "y,class"), Y),
    "label in semicolons": (comma(LABELLED.replace(",", ";")).replace("0,1;1", "0,1;1"), Y),
    "label in blanks": (LABELLED.replace(",", " "), Y),
    "label in a comment": (f"# {LABELLED}", Y),
    "label first": ("label;a;b;c\n0;0,9;0,2;0,1\n1;0,1;0,8;0,3\n", Y),
    "labels as decimals": (LABELLED.replace(",0\n", ",0.0\n").replace(",1\n", ",1.0\n"), Y),
    "labels as truth": (LABELLED.replace(",0\n", ",False\n").replace(",1\n", ",true\n"), Y),
}
"""Name -> the text of a table, and its labels."""

OTHER_NUMBERS = {
    "three digits beside others": [*X, [9.125, 1.25, 3.5]],
    "one decimal comma among whole numbers": [[0.5, 1, 2], [3, 4, 5]],
}
ENCODINGS = {
    "utf-8": lambda text: text.encode(),
    "utf-8 with mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16-le": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "utf-16-be": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "utf-32": lambda text: text.encode("utf-32"),
}


def read(path: Path, **options: object):
    return read_samples(path, **({"input_shape": (1, 3), "n_classes": 3} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", READ)
def test_tables_of_other_programs_are_read(tmp_path: Path, name: str) -> None:
    text, labels = READ[name]
    (tmp_path / "x.csv").write_bytes(text.encode())
    found = read(tmp_path / "x.csv")
    np.testing.assert_array_equal(found.inputs, OTHER_NUMBERS.get(name, X))
    assert (None if found.labels is None else found.labels.tolist()) == labels


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_are_read_in_every_marked_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.csv").write_bytes(ENCODINGS[encoding]("größe;b;c;label\r\n0,9;0,2;0,1;0\r\n0,1;0,8;0,3;1\r\n"))
    found = read(tmp_path / "x.csv")
    np.testing.assert_array_equal(found.inputs, X)
    assert found.labels.tolist() == Y


REFUSED: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty": ("", ("is empty",)),
    "mark alone": ("\ufeff", ("no rows",)),
    "blank lines": ("\n \n", ("no rows",)),
    "comments alone": ("# a,b,c\n", ("no rows",)),
    "heading alone": ("a,b,c\n", ("only a heading",)),
    "empty in the first row": ("0.9,,0.1\n0.1,0.8,0.3\n", ("sample 0", "input 1", "line 1, column 2 has nothing")),
    "nan in the first row": ("nan,0.2,0.1\n0.1,0.8,0.3\n", ("sample 0", "line 1, column 1 has 'nan'")),
    "NA in the first row": ("0.9,0.2,NA\n0.1,0.8,0.3\n", ("sample 0", "line 1, column 3 has 'NA'")),
    "null in the first row": ("0.9 null 0.1\n0.1 0.8 0.3\n", ("sample 0", "line 1, column 2 has 'null'")),
    "question mark in the first row": ("?;0,2;0,1\n0,1;0,8;0,3\n", ("sample 0", "line 1, column 1 has '?'")),
    "all missing": ("?,?,?\n0.1,0.8,0.3\n", ("sample 0", "line 1, column 1 has '?'")),
    "missing below a heading": ("a,b,c\n0.9,0.2,0.1\n0.1,n/a,0.3\n", ("sample 1", "line 3, column 2 ('b') has 'n/a'")),
    "empty row between": ("0.9,0.2,0.1\n,,\n0.1,0.8,0.3\n", ("sample 1", "line 2, column 1 has nothing")),
    "missing last entry": ("0.9,0.2,\n0.1,0.8,0.3\n", ("sample 0", "line 1, column 3 has nothing")),
    "missing label": (LABELLED.replace("0.1,0\n", "0.1,\n"), ("label of sample 0", "line 2, column 4 ('label')")),
    "infinity": ("0.9,0.2,inf\n0.1,0.8,0.3\n", ("sample 0 has infinity at input 2",)),
    "half a label": (LABELLED.replace("0.1,0\n", "0.1,0.5\n"), ("label of sample 0 is 0.5", "whole")),
    "classes by name": (LABELLED.replace(",0\n", ",cat\n"), ("line 2, column 4 ('label') has 'cat'", "whole numbers")),
    "classes by name, no heading": ("0.9,0.2,0.1,cat\n0.1,0.8,0.3,dog\n", ("line 1 has 'cat' in column 4",)),
    "letter for a digit in the first row": ("0.9,O.2,0.1\n0.1,0.8,0.3\n", ("line 1 has 'O.2' in column 2",)),
    "letter behind 1, 2, 3": ("1,2,x\n0.1,0.8,0.3\n", ("line 1 has 'x' in column 3",)),
    "letter for a digit below": ("0.9,0.2,0.1\n0.1,O.8,0.3\n", ("line 2, column 2 has 'O.8'", "no number")),
    "thousands": ("1,234,567;2;3\n4;5;6\n", ("line 1, column 1 has '1,234,567'", "thousands")),
    "thousands with points": ("1.234,5;2;3\n", ("'1.234,5'", "thousands")),
    "thousands with decimal points": ("1,234.5;2;3\n", ("'1,234.5'", "thousands")),
    "thousands with apostrophes": ("1'234;2;3\n", ('"1\'234"', "thousands")),
    "thousands with blanks": ("1 234;2;3\n", ("'1 234'", "thousands")),
    "thousands with narrow blanks": ("1\u202f234;2;3\n", ("thousands",)),
    "thousands with underscores": ("1_000,2,3\n", ("'1_000'", "thousands")),
    "quoted thousands": ('"1,234,567",2,3\n', ("thousands",)),
    "thousands or decimals": ("1,500;2,500;3\n", ("1,500 (line 1, column 1)", "decimal mark or a separator")),
    "thousands or decimals in quotes": ('"1,500","2,500",3\n', ("1,500 (line 1, column 1)", "decimal points")),
    "points and commas": ("0,5;0.25;1\n", ("0.25 (line 1, column 2)", "0,5 (line 1, column 1)")),
    "decimal commas between commas": (
        comma(LABELLED),
        ("line 2 has 7 entries, and the heading 4", "commas", "semicolons"),
    ),
    "short row": ("a,b,c\n0.9,0.2,0.1\n0.1,0.8\n", ("line 3 has 2 entries, and the heading 3", "separated by commas")),
    "long row": ("0.9 0.2 0.1\n0.1 0.8 0.3 4\n", ("line 2 has 4 entries, and the first line 3", "blanks")),
    "lines": ("0.9|0.2|0.1\n0.1|0.8|0.3\n", ("'0.1|0.8|0.3'", "separate columns by commas, semicolons")),
    "index without a name": (",a,b,c\n0,0.9,0.2,0.1\n", ("first column with no name", "index=False")),
    "index of pandas, read again": ("Unnamed: 0,a,b,c\n0,0.9,0.2,0.1\n", ("'Unnamed: 0'", "index=False")),
    "index over numbers": (",0,1,2\n0,0.9,0.2,0.1\n", ("first column with no name", "index=False")),
    "heading or sample": ("0,1,2\n3,4,5\n", ("line 1 counts the columns", "header=False")),
    "two labels": ("a,class,target,d\n1,2,3,4\n", ("'class' and 'target'", "call one of them label")),
    "open quotation": ('"0.9,0.2,0.1\n', ("line 1", "quotation marks")),
    "other separator of excel": ("sep=|\n1|2|3\n", ("line 1 names '|'", "separator")),
    "latin-1": ("größe,b,c\n1,2,3\n".encode("latin-1"), ("no UTF-8 text", "0xf6", "save it as UTF-8")),
    "half a character": (codecs.BOM_UTF16_LE + b"1\x00,", ("no UTF-16 text",)),
    "date": ("2024-01-01,2,3\n2024-01-02,2,3\n", ("'2024-01-01'",)),
}
"""Name -> the text of a table, and words of the sentence about it."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_with_a_table_is_said_in_one_sentence(tmp_path: Path, name: str) -> None:
    content, words = REFUSED[name]
    path = tmp_path / "x.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read(path)
    told = str(caught.value)
    assert told.startswith(str(path))
    assert "\n" not in told
    for word in words:
        assert word in told


def test_samples_with_missing_numbers_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("0.9,0.2,0.1\nNA,0.8,0.3\n")
    np.testing.assert_array_equal(read(tmp_path / "x.csv", index=[0]).inputs, X[:1])


def read_or_refused(path: Path) -> np.ndarray | str:
    """Return the inputs, or the sentence about them."""
    try:
        return read(path, n_classes=None).inputs
    except DataError as error:
        return str(error)


@given(st.lists(st.text(alphabet="0123456789.,;- eE+\t\"#'na", max_size=30), max_size=4))
def test_any_text_is_a_table_or_refused(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("t") / "x.csv"
    path.write_text("\n".join(lines))
    found = read_or_refused(path)
    assert "\n" not in found if isinstance(found, str) else found.shape[1] == 3


numbers = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@given(
    st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5),
    st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ","), (" ", "."), (" ", ",")]),
)
def test_written_numbers_come_back_or_are_called_ambiguous(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]], form: tuple[str, str]
) -> None:
    separator, mark = form
    path = tmp_path_factory.mktemp("t") / "x.csv"
    lines = [separator.join(repr(value).replace(".", mark) for value in row) for row in rows]
    path.write_text("\n".join(lines))
    found = read_or_refused(path)
    if isinstance(found, str):
        assert (mark, "thousands" in found) == (",", True)
    else:
        np.testing.assert_array_equal(found, rows)


# ---- labels, radii, objectives, groups, lists ------------------------------------------------------------------------

LABEL_FILES = {
    "column": "0\n1\n",
    "row": "0,1\n",
    "blanks": "0 1\n",
    "savetxt": "0.000000000000000000e+00\n1.000000000000000000e+00\n",
    "heading": "label\n0\n1\n",
    "any heading": "what\n0\n1\n",
    "truth": "False\nTrue\n",
    "beside others": "id;y\n7;0\n9;1\n",
    "windows": "\ufefflabel\r\n0\r\n1\r\n",
    "decimals": "0,0\n1,0\n".replace(",", "."),
}


@pytest.mark.parametrize("name", LABEL_FILES)
def test_label_files_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.csv").write_text(PLAIN)
    (tmp_path / "y.csv").write_text(LABEL_FILES[name])
    assert read(tmp_path / "x.csv", labels=tmp_path / "y.csv").labels.tolist() == Y


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a,b\n0,1\n", "none of which is called label"),
        ("0,5\n1,5\n", "none of which is called label"),
        ("1.5\n0\n", "label of sample 0 is 1.5"),
        ("NA\n1\n", "label of sample 0 is nan (line 1, column 1 has 'NA')"),
        (",label\n0,0\n1,1\n", "first column with no name"),
        ("cat\ndog\n", "'dog'"),
    ],
)
def test_label_files_are_refused_in_one_sentence(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "x.csv").write_text(PLAIN)
    (tmp_path / "y.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "x.csv", labels=tmp_path / "y.csv")
    assert word in str(caught.value)


RADII = [
    "0.5,0,1",
    "0.5 0 1",
    "0,5;0;1",
    "0,5\t0\t1",
    "0.5\n0\n1\n",
    "0.5; 0 1",
    "0.5,0\n1",
    "sigma\r\n0.5\r\n0\r\n1\r\n",
    "\ufeff0.5;0\n1",
]


@pytest.mark.parametrize("text", RADII)
def test_radii_and_weights_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    assert read_radii(tmp_path / "s.csv", (1, 3)).tolist() == [0.5, 0, 1]
    assert read_objective(tmp_path / "s.csv")[0].tolist() == [0.5, 0, 1]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("0.5,,1", "line 1, column 2 has nothing"),
        ("0.5;NA;1", "line 1, column 2 has 'NA'"),
        ("1,500;1,250", "decimal mark or a separator of thousands"),
        ("0.5,1,one", "beside numbers"),
        ("", "is empty"),
        ("\n", "has no numbers"),
        ("some words\n", "has no numbers and begins with 'some'"),
    ],
)
def test_radii_are_refused_in_one_sentence(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=word):
        read_radii(tmp_path / "s.csv", (1, 3))


@pytest.mark.parametrize(
    "text", ["u;v;u", "u\tv\tu", "u\nv\nu\n", "u\r\nv\r\nu\r\n", '\ufeff"u","v"\n"u"\n', "u\rv\ru"]
)
def test_groups_are_read_whatever_separates_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "g.csv").write_bytes(text.encode())
    assert read_groups(tmp_path / "g.csv", 3).labels.tolist() == [0, 1, 0]


def test_names_of_groups_may_have_blanks_and_numbers_stand_between_them(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("sepal length\nwidth\nsepal length\n")
    assert read_groups(tmp_path / "g.csv", 3).names == ("sepal length", "width")
    (tmp_path / "g.csv").write_text("3 1\n3\n")
    assert read_groups(tmp_path / "g.csv", 3).labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
def test_lists_of_properties_are_read(tmp_path: Path, encoding: str, separator: str) -> None:
    text = "# mine\ra.onnx,p.vnnlib,9\rb.onnx,q.vnnlib,2.5\r".replace(",", separator)
    (tmp_path / "i.csv").write_bytes(ENCODINGS[encoding](text))
    first, second = read_instances(tmp_path / "i.csv")
    assert (first.onnx, first.vnnlib, first.timeout) == ("a.onnx", "p.vnnlib", 9)
    assert (second.onnx, second.vnnlib, second.timeout) == ("b.onnx", "q.vnnlib", 2.5)


@pytest.mark.parametrize(
    "text", ["file,label\na.png,3\n", "a.png;3\n", "file;class\r\na.png;3.0\r\n", "a.png\t3", "a.png 3"]
)
def test_labels_of_images_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_bytes(codecs.BOM_UTF16_LE + text.encode("utf-16-le"))
    found = list_images(tmp_path)
    assert ([file.name for file in found.files], found.labels.tolist()) == (["a.png"], [3])


@pytest.mark.parametrize("text", ["a.png;3.5\n", "file;label;more\na.png;3;1\n", "a.png;cat\n"])
def test_labels_of_images_are_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=r"labels\.csv, line [12] has"):
        list_images(tmp_path)


# ---- properties and configurations -----------------------------------------------------------------------------------

PROPERTY = """; one
(declare-const X_0 Real)
(declare-const Y_0 Real)
(assert (and (>= X_0 0) (<= X_0 1)))
(assert (>= Y_0 2))
"""


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("zipped", [False, True])
def test_properties_are_read_in_every_marked_encoding(
    tmp_path: Path, encoding: str, line_end: str, zipped: bool
) -> None:
    content = ENCODINGS[encoding](PROPERTY.replace("\n", line_end))
    (tmp_path / "p.vnnlib").write_bytes(gzip.compress(content) if zipped else content)
    assert read_vnnlib(tmp_path / "p.vnnlib").boxes == parse_vnnlib(PROPERTY).boxes


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_configurations_are_read_in_every_marked_encoding(tmp_path: Path, encoding: str, line_end: str) -> None:
    text = '[tool.idl-audit.defaults]\nmodel = "größe.onnx"\n'.replace("\n", line_end)
    (tmp_path / "pyproject.toml").write_bytes(ENCODINGS[encoding](text))
    found = find_configuration(tmp_path)
    assert found is not None
    assert read_configuration(found).options("certify")["model"].name.endswith("größe.onnx")


@pytest.mark.parametrize("content", [b"[defaults]\nmodel = '\xe9.onnx'\n", "[defaults]\n".encode("utf-16-le")])
def test_configurations_in_another_encoding_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "idl-audit.toml").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"idl-audit\.toml is no .*text.*UTF-8"):
        read_configuration(tmp_path / "idl-audit.toml")
