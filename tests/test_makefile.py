"""The make targets: names, variables, and what a shell makes of their values. Nothing is installed
or run here."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TARGETS = (
    "setup report publish test lab data tokenize train eval bench bench-quant ablations plot plot-quant "
    "verify-corpus test-idem pack verify clean distclean help notebooks lock"
).split()


def make(*arguments, cwd=ROOT, **environment):
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=cwd,
        env=kept | {"PWD": str(cwd)} | environment,
        capture_output=True,
        text=True,
    )


def command(*arguments, **options):
    """The words of the last command that a target would run."""
    done = make("-n", "VENV=none", *arguments, **options)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout.strip().splitlines()[-1])


def settings(words):
    return [words[i + 1] for i, word in enumerate(words) if word == "--set"]


def test_help_lists_every_target_with_one_line():
    lines = make("help").stdout.splitlines()[1:]
    listed = {line.split()[0]: line.split(None, 1)[1] for line in lines}
    assert set(listed) == set(TARGETS) and all(listed.values())
    assert make().stdout == make("help").stdout


def test_without_variables_only_the_profile_is_given():
    words = command("report")
    assert words[1:4] == ["-m", "paper", "report"] and settings(words) == []
    assert words[words.index("--profile") + 1] == "paper"


@pytest.mark.parametrize(
    "variable, parameter",
    [
        ("CORPUS", "corpus"),
        ("CORPORA_DIR", "corpora_dir"),
        ("TOKENIZER", "tokenizer"),
        ("SEED", "seed"),
        ("SALT", "salt"),
        ("CONTEXT", "context"),
        ("DIM", "d_model"),
        ("HEADS", "n_heads"),
        ("LR", "lr"),
        ("SEED_BENCH", "bench_seed"),
        ("QUANT_BITS", "bits"),
        ("TEMP", "temperature"),
        ("TOPK", "top_k"),
        ("TOPP", "top_p"),
        ("BEAM", "beam_width"),
        ("LENGTH_PENALTY", "length_penalty"),
    ],
)
def test_a_variable_reaches_its_parameter(variable, parameter):
    assert settings(command("train", f"{variable}=7", "PROFILE=quick")) == [f"{parameter}=7"]


@pytest.mark.parametrize(
    "value", ["mis textos/el niño.txt", 'it\'s "here"', "a;b|c&d>e", "*", "-x"]
)
def test_values_survive_the_shell(value):
    assert settings(command("data", f"CORPUS={value}")) == [f"corpus={value}"]


def test_variables_may_come_from_the_environment_but_temp_has_another_meaning_there():
    assert settings(command("data", SEED="7", TEMP="/tmp")) == ["seed=7"]


def test_a_relative_corpus_starts_from_the_callers_folder(tmp_path):
    words = command("-C", str(ROOT), "data", "CORPUS=a.txt", cwd=tmp_path)
    assert words[words.index("--caller") + 1] == str(tmp_path)


def test_an_old_python_is_refused_by_name(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = make("setup", f"PYTHON={old}", f"VENV={tmp_path / 'v'}")
    assert (
        done.returncode
        and f"Python 3.11 or newer is needed, and {old} is Python 3.9.1" in done.stderr
    )
    assert not (tmp_path / "v").exists()


def test_the_environment_comes_from_the_lock_and_an_index_may_be_added(tmp_path):
    lines = make(
        "-n", "setup", f"VENV={tmp_path / 'v'}", "TORCH_INDEX=https://example.org/cpu"
    ).stdout
    assert (
        "--extra-index-url https://example.org/cpu -r requirements.lock" in lines
        and "--no-deps" in lines
    )
    assert "--extra-index-url" not in make("-n", "setup", f"VENV={tmp_path / 'v'}").stdout


def test_continuous_integration_runs_the_same_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script and re.search(r"^make test$", script, re.MULTILINE)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
