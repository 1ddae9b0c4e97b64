"""Strict parameters: known names, right types, and messages that say how to write it."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from paper import parameters as p
from paper_project import make_project, write_notebook

KNOWN = {"seed": 42, "lr": 0.0, "salt": "ab", "verbose": False, "sizes": [10, 50], "empty": []}


@pytest.fixture
def notebooks(tmp_path):
    return make_project(tmp_path) / "notebooks"


def test_the_known_parameters_are_the_union_of_the_cells(notebooks):
    known = p.known_parameters(notebooks)
    assert known["steps"] == 3 and known["salt"] == "ab12" and known["sizes"] == [10, 50]


def test_two_notebooks_that_disagree_about_a_default_are_an_error(notebooks):
    write_notebook(notebooks / "03-eval.ipynb", "seed = 42.0  # seed\n")
    with pytest.raises(
        p.ParameterError, match="seed is 42 in 02-train.ipynb and 42.0 in 03-eval.ipynb"
    ):
        p.known_parameters(notebooks)


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
        ("seed", 60.0, 60),
        ("verbose", True, True),
        ("sizes", (1, 2.0), [1, 2]),
        ("salt", "9", "9"),
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
        ("seed", None, "seed = None is nothing"),
        ("lr", "fast", "lr = 'fast' is text, and a number is expected"),
        ("lr", "nan", "lr = 'nan' is text"),
        ("lr", float("inf"), "lr = inf is a number"),
        ("lr", False, "lr = False is true/false"),
        ("salt", 1234, 'quote it in YAML \\("1234"\\), or use -r'),
        (
            "verbose",
            "true",
            "verbose = 'true' is text, and true/false is expected: write True or False",
        ),
        ("sizes", [1, "x"], r"sizes\[1\] = 'x' is text"),
        ("sizes", 3, "sizes = 3 is a whole number, and a list"),
        ("empty", (1,), "is tuple, and a list"),
    ],
)
def test_unknown_names_and_wrong_types_name_value_and_remedy(name, value, message):
    with pytest.raises(p.ParameterError, match=message):
        p.check({name: value}, KNOWN)


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("seed", "7", 7),
        ("seed", "2e5", 200000),
        ("seed", "1.5", 1.5),
        ("seed", "seven", "seven"),
        ("lr", "1e-3", 0.001),
        ("lr", "3", 3.0),
        ("salt", "0012", "0012"),
        ("verbose", "TRUE", True),
        ("verbose", "0", False),
        ("verbose", "maybe", "maybe"),
        ("sizes", "1,2", [1, 2]),
        ("sizes", "[3]", [3]),
        ("unknown", "7", "7"),
    ],
)
def test_a_command_line_value_is_read_as_its_default(name, text, expected):
    assert p.parse(text, name, KNOWN) == expected


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
    with pytest.raises(p.ParameterError, match="list.yaml holds list"):
        p.resolve(notebooks, "list")


def test_in_a_kernel_only_papermills_cell_can_bring_unknown_names():
    cells = ["", "seed = 1", "# Parameters\nsed = 3\nlr = 0.5\n", "mine = 5"]
    values, explicit = p.injected({"In": cells, "sed": 3, "lr": 0.5, "mine": 5, "seed": 1}, KNOWN)
    assert values == {"sed": 3, "lr": 0.5, "seed": 1} and explicit == {"sed", "lr"}


def test_outside_a_kernel_every_plain_value_counts():
    values, explicit = p.injected({"sed": 3, "_hidden": 4, "open": open, "seed": 1}, KNOWN)
    assert values == {"sed": 3, "seed": 1} and explicit == {"sed", "seed"}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_survives_being_written_and_read(value):
    assert p.parse(repr(value), "lr", KNOWN) == value
    assert p.check({"lr": repr(value)}, KNOWN)["lr"] == value
