"""Which values of a kernel are the notebook's parameters."""

import pytest

from paper.kernel import running
from paper.parameters import ParameterError

TRAIN = {"profile": "quick", "run_dir": "", "seed": 42, "lr": 0.0, "steps": 50}
EVAL = {"profile": "quick", "run_dir": "", "seed": 42, "temperature": 0.8, "top_k": 50}
CELLS = {"02-train": TRAIN, "03-eval": EVAL}


def source(cell, **changes):
    return "".join(f"{n}: {type(v).__name__} = {v!r}  # c\n" for n, v in (cell | changes).items())


def test_the_parameters_cell_counts_and_what_papermill_injected_after_it():
    injected = "# Parameters\nsed = 3\nlr = 0.5\n"
    values, explicit = running({"In": ["", source(TRAIN), injected, "mine = 5"]}, "02-train", CELLS)
    assert values == TRAIN | {"sed": 3, "lr": 0.5} and explicit == {"sed", "lr"}


def test_leftovers_of_a_first_run_do_not_count():
    """The chapter's own variables that are named as parameters, its own or another chapter's."""
    history = ["", source(TRAIN), "nb = open_notebook('02-train', globals())", "top_k = 3"]
    kernel = {"In": history + history[1:], "steps": [1, 2], "top_k": 3, "temperature": object()}
    assert running(kernel, "02-train", CELLS) == (TRAIN, set())


def test_an_edited_cell_counts_with_a_renamed_parameter_in_it():
    edited = source(TRAIN, steps=7).replace("lr", "rl")
    values, _ = running({"In": ["", source(TRAIN), edited]}, "02-train", CELLS)
    assert values["steps"] == 7 and "rl" in values and "lr" not in values


def test_a_value_that_is_no_literal_is_the_kernels():
    cell = source(TRAIN) + "steps = 2 * 30\n"
    assert running({"In": ["", cell], "steps": 60}, "02-train", CELLS)[0]["steps"] == 60


def test_each_chapter_in_a_kernel_has_its_own():
    history = ["", source(TRAIN, seed=1), "# Parameters\nlr = 0.5", source(EVAL, seed=2)]
    assert running({"In": history}, "02-train", CELLS) == (TRAIN | {"seed": 1, "lr": 0.5}, {"lr"})
    assert running({"In": history}, "03-eval", CELLS) == (EVAL | {"seed": 2}, set())


def test_the_guard_alone_asks_for_the_cell_before_it():
    for history in ([""], ["", source(EVAL)], ["", "seed = 3"], ["", "%%x", "seed ="]):
        with pytest.raises(ParameterError, match="parameters cell of 02-train has not run in this"):
            running({"In": history}, "02-train", CELLS)


def test_a_notebook_of_ones_own_takes_its_cell_and_may_have_none():
    history = ["", "profile = 'paper'\nmine = 3\n", "# Parameters\nseed = 4"]
    found = running({"In": history}, "09-mine", CELLS)
    assert found == ({"profile": "paper", "mine": 3, "seed": 4}, {"seed"})
    assert running({"In": [""]}, "09-mine", CELLS) == ({}, set())


def test_outside_a_kernel_every_plain_value_counts():
    names = {"sed": 3, "_hidden": 4, "open": open, "seed": 1}
    assert running(names, "02-train", CELLS) == ({"sed": 3, "seed": 1}, {"sed", "seed"})


def test_a_client_without_a_history_is_believed_by_the_names_of_the_own_cell():
    """nbval records nothing of what it runs: the kernel holds the parameters all the same."""
    kernel = {"In": ["", "nb = open_notebook('02-train', globals())"], "top_k": 9, **TRAIN}
    assert running({**kernel, "steps": 7}, "02-train", CELLS) == (TRAIN | {"steps": 7}, set())
    del kernel["steps"]
    with pytest.raises(ParameterError, match="the parameters cell of 02-train has not run"):
        running(kernel, "02-train", CELLS)
    kernel = {"In": ["", "x = 1", "nb = open_notebook('02-train', globals())"], **TRAIN}
    with pytest.raises(ParameterError, match="has not run"):  # a client that does record
        running(kernel, "02-train", CELLS)
