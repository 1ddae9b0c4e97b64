"""Strict parameters: known names, right types, and messages that say how to write it."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from papermill import cli as papermill_cli

from paper import parameters as p
from paper_project import make_project, write_notebook

KNOWN = {"seed": 42, "lr": 0.0, "salt": "ab", "verbose": False, "sizes": [10, 50], "empty": []}


@pytest.fixture
def notebooks(tmp_path):
    return make_project(tmp_path) / "notebooks"


def test_the_known_parameters_are_the_union_of_the_cells(notebooks):
    known = p.known_parameters(notebooks)
    assert known["steps"] == 3 and known["salt"] == "ab12" and known["sizes"] == [10, 50]


def test_a_change_saved_in_one_notebook_is_no_error_and_is_told(notebooks):
    """JupyterLab saves by itself: a changed copy must not stop every command."""
    write_notebook(notebooks / "02-train.ipynb", "seed = 43.0  # seed\nsteps = 3  # updates\n")
    write_notebook(notebooks / "report.ipynb", "seed = 44  # seed\nlr = 0.0  # rate\n")
    write_notebook(notebooks / "03-eval.ipynb", "seed = 42  # seed\n")
    assert p.known_parameters(notebooks)["seed"] == 42
    assert p.saved_changes(notebooks) == {"seed": {"02-train": 43, "report": 44}}
    params = p.resolve(notebooks)
    assert params["seed"] == 43
    assert p.notes(notebooks, params) == [
        "seed is saved as 43 in 02-train.ipynb and 44 in report.ipynb: this run takes 43"
    ]
    assert p.resolve(notebooks, "paper")["seed"] == 7  # the profile's own value wins
    assert p.resolve(notebooks, given={"seed": "8"})["seed"] == 8
    assert p.resolve(notebooks, own=frozenset({"seed"}))["seed"] == 42
    assert p.notes(notebooks, params, "report")


def test_the_defaults_are_those_of_the_quick_profile(notebooks):
    """So a change of a parameter that one notebook alone has is seen as well."""
    (notebooks / "profiles" / "quick.yaml").write_text("steps: 5\n")
    assert p.known_parameters(notebooks)["steps"] == 5
    assert p.saved_changes(notebooks) == {"steps": {"02-train": 3}}
    assert p.resolve(notebooks)["steps"] == 3
    write_notebook(notebooks / "02-train.ipynb", 'steps = "many"  # updates\n')
    with pytest.raises(p.ParameterError, match="02-train.ipynb: steps = 'many' is text"):
        p.resolve(notebooks)


def test_a_broken_parameters_cell_is_named(notebooks):
    write_notebook(notebooks / "02-train.ipynb", "steps = = 3\n")
    with pytest.raises(p.ParameterError, match="02-train.ipynb: line 1 of the parameters cell is"):
        p.resolve(notebooks)


@pytest.mark.parametrize("source", ["x = 1 + y", "print(3)", "a, b = 1, 2", "x: int"])
def test_a_parameters_cell_holds_literals_only(source):
    with pytest.raises(
        p.ParameterError, match="line 1 of the parameters cell is not `name = literal`"
    ):
        p.literals(source, "04.ipynb")


def test_an_annotated_literal_counts_and_a_notebook_may_have_no_parameters(tmp_path):
    assert p.literals("lr: float = 1.0e-3", "x") == {"lr": 0.001}
    write_notebook(tmp_path / "x.ipynb", "a = 1")
    (tmp_path / "x.ipynb").write_text(
        (tmp_path / "x.ipynb").read_text().replace('"parameters"\n', '"other"\n')
    )
    assert p.parameters_cell(tmp_path / "x.ipynb") == {}


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("lr", "1e-3", 0.001),
        ("lr", 1, 1.0),
        ("lr", np.float32(0.5), 0.5),
        ("seed", 60.0, 60),
        ("seed", "1_000", 1000),
        ("seed", " 2e5 ", 200000),
        ("seed", "12.0", 12),
        ("seed", np.int64(7), 7),
        ("verbose", True, True),
        ("verbose", np.True_, True),
        ("verbose", "TRUE", True),
        ("verbose", "no", False),
        ("sizes", (1, 2.0), [1, 2]),
        ("sizes", "1, 2", [1, 2]),
        ("sizes", "[3]", [3]),
        ("sizes", "[]", []),
        ("empty", "[1, 2]", [1, 2]),
        ("salt", "9", "9"),
        ("salt", "0012", "0012"),
        ("salt", "no", "no"),
    ],
)
def test_lossless_readings_are_accepted_in_the_type_of_the_default(name, value, expected):
    got = p.check({name: value}, KNOWN)[name]
    assert got == expected and type(got) is type(KNOWN[name])


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("sed", 3, "parameter sed = 3 is unknown: did you mean seed"),
        ("zzzzzz", 3, "zzzzzz = 3 is unknown: known are empty, lr, salt, seed"),
        (
            "seed",
            1.5,
            "seed = 1.5 is a number, and a whole number is expected: write it as 42 is written",
        ),
        ("seed", True, "seed = True is true/false"),
        ("seed", np.True_, "seed = "),
        ("seed", None, "seed = None is nothing"),
        ("seed", "seven", "seed = 'seven' is text, and a whole number"),
        ("seed", "1.5", "seed = '1.5' is text"),
        ("seed", "", "seed = '' is text"),
        ("seed", "٤٢", "is text"),
        ("seed", "1e99999999999999999999", "is text"),
        ("seed", "1e400", "is text"),
        ("seed", "9" * 5000, "is text"),
        ("seed", float(2**53), "write all its digits, without a point or an exponent"),
        ("seed", float("nan"), "seed = nan is a number"),
        ("lr", "fast", "lr = 'fast' is text, and a number is expected"),
        ("lr", "nan", "lr = 'nan' is text"),
        ("lr", float("inf"), "lr = inf is a number"),
        ("lr", 10**400, "lr = 1000"),
        ("lr", False, "lr = False is true/false"),
        ("salt", 1234, r'write it in quotes \(salt: "..." in YAML\), or use -r'),
        ("salt", False, "salt = False is true/false, and text is expected: write it in quotes"),
        (
            "verbose",
            "maybe",
            "verbose = 'maybe' is text, and true/false is expected: write True or False",
        ),
        ("verbose", 1, "verbose = 1 is a whole number"),
        ("sizes", [1, "x"], r"sizes\[1\] = 'x' is text"),
        ("sizes", [[1]], r"sizes\[0\] = \[1\] is a list, and a whole number"),
        ("sizes", "[1, [2]]", r"sizes\[1\] = '\[2\]' is text"),
        ("sizes", "[1, 2", r"sizes = '\[1, 2' is text, and a list is expected: write it as \[10"),
        ("sizes", 3, "sizes = 3 is a whole number, and a list"),
        ("sizes", {"a": 1}, "is a mapping, and a list"),
    ],
)
def test_unknown_names_and_wrong_types_name_value_and_remedy(name, value, message):
    with pytest.raises(p.ParameterError, match=message) as caught:
        p.check({name: value}, KNOWN)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@given(st.text(max_size=400), st.text(max_size=400))
def test_whatever_is_typed_ends_in_a_value_or_in_one_short_line(name, text):
    for given_name in (name, *KNOWN):
        try:
            assert type(p.check({given_name: text}, KNOWN)[given_name]) in p.KINDS
        except p.ParameterError as error:
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 400


INTEGERS = st.integers() | st.integers(2**53 - 2, 2**70) | st.integers(-(2**70), -(2**53) + 2)


@given(value=INTEGERS)
def test_an_integer_is_exact_through_every_door(value):
    """make and --set, a cell, papermill -p and -y, YAML profiles, NumPy: to the last digit."""
    doors = {
        "text": str(value),
        "a list's text": f"[{value}]",
        "grouped": f"{value:_}",
        "cell": p.literals(f"seed: int = {value}", "x")["seed"],
        "papermill -p": papermill_p(str(value)),
        "papermill -y": yaml.safe_load(f"seed: {value}")["seed"],
    }
    if abs(value) < 2**53:
        doors |= {"float": float(value), "NumPy": np.int64(value), "scientific": f"{value}e0"}
    for door, given_value in doors.items():
        name = "sizes" if "list" in door else "seed"
        got = p.check({name: given_value}, KNOWN)[name]
        got = got[0] if name == "sizes" else got
        assert got == value and type(got) is int, door


def papermill_p(text):
    return papermill_cli._resolve_type(text)


@given(value=INTEGERS)
def test_an_integer_in_a_profile_is_exact(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "some.yaml"
    path.write_text(f"seed: {value}\nsizes: [{value}, {value}]\nsalt: {value}\n")
    got = p.check(p.read_profile(path), KNOWN)
    assert got == {"seed": value, "sizes": [value, value], "salt": str(value)}


def test_yaml_writes_what_the_check_accepts(notebooks):
    assert yaml.safe_load("lr: 1e-3") == {"lr": "1e-3"}  # the trap itself
    params = p.resolve(notebooks, "paper")
    assert (
        params["lr"] == 0.001
        and params["seed"] == 7
        and params["profile"] == "paper"
        and params["steps"] == 3
    )
    assert p.resolve(notebooks, "paper", {"seed": 8})["seed"] == 8


def test_profiles_are_checked_too(notebooks):
    with pytest.raises(
        p.ParameterError, match="profile 'papr' is unknown: choose one of quick, paper"
    ):
        p.resolve(notebooks, "papr")
    (notebooks / "profiles" / "bad.yaml").write_text("stps: 3")
    with pytest.raises(p.ParameterError, match="did you mean steps"):
        p.resolve(notebooks, "bad")
    (notebooks / "profiles" / "list.yaml").write_text("- 3")
    with pytest.raises(p.ParameterError, match="list.yaml holds a list"):
        p.resolve(notebooks, "list")


@pytest.mark.parametrize(
    "text, message",
    [
        ("sizes: [1, 2\n", "bad.yaml is not YAML .line [12].: .*write `name: value` lines"),
        ("a: b: c", "is not YAML"),
        ("\tsteps: 3", "is not YAML"),
        ("steps: [[1], 2]", "steps = .* is a list, and a whole number"),
        ("sizes: [[1], 2]", r"sizes\[0\] = \['1'\] is a list, and a whole number"),
        ("sizes: {a: 1}", "is a mapping, and a list"),
        ("steps:", "steps = '' is text"),
        ("just words", "bad.yaml holds text"),
    ],
)
def test_a_broken_profile_is_one_line(notebooks, text, message):
    (notebooks / "profiles" / "bad.yaml").write_text(text)
    with pytest.raises(p.ParameterError, match=message) as caught:
        p.resolve(notebooks, "bad")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../paper", "x" * 5000, "~nobody", "a b", "", "\0"])
def test_a_strange_profile_name_is_one_line(notebooks, name):
    with pytest.raises(p.ParameterError, match="is unknown: choose one of quick, paper"):
        p.resolve(notebooks, name)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_survives_being_written_and_read(value):
    for given_value in (value, repr(value), np.float64(value), papermill_p(repr(value))):
        got = p.check({"lr": given_value}, KNOWN)["lr"]
        assert got == value and type(got) is float


@given(st.lists(st.text(max_size=20), max_size=4))
def test_a_list_of_texts_is_itself_when_written_and_read(value):
    known = {"names": ["a"]}
    assert p.check({"names": str(value)}, known)["names"] == value
    plain = [text for text in value if text.isalnum()]
    assert p.check({"names": ", ".join(plain)}, known)["names"] == plain


def test_every_default_is_itself_when_written_and_read():
    """As a notebook that is opened alone hands its parameters on."""
    known = p.known_parameters(Path(__file__).parent.parent / "notebooks")
    assert any(isinstance(value, list) and isinstance(value[0], str) for value in known.values())
    for name, value in known.items():
        assert p.check({name: str(value)}, known)[name] == value
