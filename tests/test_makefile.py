"""The make targets: names, variables, and what a shell makes of their values. Nothing is installed
or run here."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TARGETS = (
    "setup report publish test lab data tokenize train eval bench bench-quant ablations interop "
    "texts gpu plot plot-quant verify-corpus test-idem export sweep pack verify clean clean-cache "
    "distclean help notebooks picture wasm lock"
).split()
PARAMETERS = {
    "CORPUS": "corpus",
    "CORPORA_DIR": "corpora_dir",
    "NANOGPT": "nanogpt",
    "TOKENIZER": "tokenizer",
    "SEED": "seed",
    "SALT": "salt",
    "CONTEXT": "context",
    "DIM": "d_model",
    "HEADS": "n_heads",
    "LR": "lr",
    "SEED_BENCH": "bench_seed",
    "QUANT_BITS": "bits",
    "TEMP": "temperature",
    "TOPK": "top_k",
    "TOPP": "top_p",
    "BEAM": "beam_width",
    "LENGTH_PENALTY": "length_penalty",
}


def make(*arguments, cwd=ROOT, **environment):
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=cwd,
        env=kept | {"PWD": str(cwd)} | environment,
        capture_output=True,
        text=True,
    )


def commands(*arguments, **options):
    """The words of each command that a target would run."""
    done = make("-n", "VENV=none", *arguments, **options)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.replace("\\\n", " ").strip().splitlines()]


def command(*arguments, **options):
    """Those of the last."""
    return commands(*arguments, **options)[-1]


def settings(words):
    return [words[i + 1] for i, word in enumerate(words) if word == "--set"]


def test_help_lists_every_target_and_every_variable():
    head, *lines = make("help").stdout.splitlines()
    targets, variables = lines[: len(TARGETS)], " ".join(lines[len(TARGETS) :])
    assert head.startswith("make <target>") and lines[len(TARGETS)].startswith("VARIABLES")
    listed = {line.split()[0]: line.split(None, 1)[1] for line in targets}
    assert set(listed) == set(TARGETS) and all(listed.values())
    for name in (*PARAMETERS, "PROFILE", "JOBS", "PYTHON", "VENV", "TORCH_INDEX", "DEBUG"):
        assert re.search(rf"\b{name}\b", variables), name
    assert make().stdout == make("help").stdout


def test_without_variables_only_the_profile_is_given():
    words = command("report")
    assert words[1:4] == ["-m", "paper", "report"] and settings(words) == []
    assert words[words.index("--profile") + 1] == "paper"


def test_an_export_is_of_the_profiles_model_or_of_a_folder():
    words = command("export", "PROFILE=quick")
    assert words[1:4] == ["-m", "minitransformer.export", "reports/quick/model"]
    assert words[4:6] == ["--format", "all"]
    words = command("export", "MODEL=a folder", "FORMAT=gguf", "EXPORT_OPTIONS=--kind q8_0")
    assert words[3] == "a folder" and words[-2:] == ["--kind", "q8_0"]


@pytest.mark.parametrize("variable", PARAMETERS)
def test_a_variable_reaches_its_parameter(variable):
    words = command("train", f"{variable}=7", "PROFILE=quick")
    assert settings(words) == [f"{PARAMETERS[variable]}=7"]


def test_the_number_of_chapters_at_once_is_that_of_the_command_line_only():
    words = command("report", "JOBS=3")
    assert words[words.index("--jobs") + 1] == "3" and settings(words) == []
    assert "--jobs" not in command("report", JOBS="64")
    words = command("sweep", "GRID=a grid.yaml", "WORKERS=3")
    assert words[-4:] == ["--grid", "a grid.yaml", "--workers", "3"]
    assert "--workers" not in command("sweep", WORKERS="64")


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("DIMS", "DIM"),
        ("D_MODEL", "DIM"),
        ("d_model", "DIM"),
        ("N_HEADS", "HEADS"),
        ("HEAD", "HEADS"),
        ("QUANT_BIT", "QUANT_BITS"),
        ("bits", "QUANT_BITS"),
        ("TEMPERATURE", "TEMP"),
        ("TOP_K", "TOPK"),
        ("Corpus", "CORPUS"),
        ("profile", "PROFILE"),
        ("TORCHINDEX", "TORCH_INDEX"),
        *((parameter, variable) for variable, parameter in [*PARAMETERS.items()][::4]),
        ("TOPPS", "TOPP"),
        ("LRS", "LR"),
        ("PYTHONS", "PYTHON"),
        ("PYTEST_OPTION", "PYTEST_OPTIONS"),
        ("TORCH_INDX", "TORCH_INDEX"),
    ],
)
def test_an_unknown_variable_is_an_error_with_the_close_match(typed, meant):
    done = make("report", "VENV=none", f"{typed}=256")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == ""
    assert f"{typed} is unknown: did you mean {meant}? nothing was run" in line


@pytest.mark.parametrize("typed", ["STEPS", "steps", "it's", "EPOCHS"])
def test_a_variable_like_no_other_is_answered_with_the_list_and_the_other_door(typed):
    done = make("train", "VENV=none", "PYTHON=python3", f"{typed}=a b")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and f"{typed} is unknown: choose from BEAM CONTEXT" in line
    assert f"python3 -m paper report --set {typed.lower()}=a b" in line


def test_an_unknown_variable_is_refused_without_any_python():
    done = make("setup", "PYTHON=no-such-python", "DIMS=1")
    assert done.returncode == 2 and "DIMS is unknown: make help lists" in done.stderr


@pytest.mark.parametrize("name", ["DIMS", "STEPS", "d_model", "CI", "NAME"])
def test_the_environment_may_hold_any_name(name):
    assert settings(command("report", **{name: "3"})) == []


@pytest.mark.parametrize(
    "name",
    ["OMP_NUM_THREADS", "PIP_INDEX_URL", "PYTHONPATH", "DEBUG", "SOURCE_DATE_EPOCH", "SHELL"],
)
def test_what_is_read_by_others_may_be_given(name):
    assert settings(command("report", f"{name}=/bin/sh")) == []


@pytest.mark.parametrize(
    "value", ["mis textos/el niño.txt", 'it\'s "here"', "a;b|c&d>e", "*", "-x"]
)
def test_values_survive_the_shell(value):
    assert settings(command("data", f"CORPUS={value}")) == [f"corpus={value}"]


def test_variables_may_come_from_the_environment_but_temp_has_another_meaning_there():
    assert settings(command("data", SEED="7", TEMP="/tmp")) == ["seed=7"]


def test_a_model_is_for_a_report_and_an_export_and_for_nothing_else():
    assert settings(command("report", "MODEL=some model")) == ["model=some model"]
    assert settings(command("report", MODEL="elsewhere")) == []
    assert settings(command("train", MODEL="elsewhere")) == []
    for words in (["train"], ["test"], ["report", "bench"], []):
        done = make("-n", "VENV=none", "MODEL=x", *words)
        assert done.returncode == 2 and "MODEL is for make report and make export" in done.stderr


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


def test_setup_passes_the_folder_and_the_index_on(tmp_path):
    index = "TORCH_INDEX=https://example.org/cpu"
    words, last = commands("setup", f"VENV={tmp_path / 'v'}", index)[-2:]
    venv, index = words[words.index("--venv") + 1], words[words.index("--torch-index") + 1]
    assert words[1] == "install.py" and venv == str(tmp_path / "v")
    assert last == [str(tmp_path / "v" / "bin" / "python"), "-m", "minitransformer.native"]
    assert index == "https://example.org/cpu"
    assert "--torch-index" not in str(commands("setup", f"VENV={tmp_path / 'v'}"))
    assert make("setup", "VENV=none").returncode == 0


def test_testing_is_a_script_that_needs_no_shell():
    (words,) = commands("test", "PYTHON=python3", "PYTEST_OPTIONS=-x -k cache")
    assert words == ["python3", "check.py", "-x", "-k", "cache"]


def test_jupyterlab_opens_the_notebooks_and_reaches_the_reports():
    words = command("lab", "LAB_OPTIONS=--no-browser --port=1")
    assert {"--ServerApp.root_dir=.", "--LabApp.default_url=/lab/tree/notebooks"} < set(words)
    assert words[-2:] == ["--no-browser", "--port=1"]


@pytest.fixture
def copy(tmp_path):
    """The tracked files as they are now, the large ones aside, in a repository of their own."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(git, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    target = tmp_path / "a copy"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and (ROOT / name).stat().st_size < 100_000:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"],
    ):
        subprocess.run(["git", *words], cwd=target, check=True)
    return target


def changed(repository):
    words = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(words, cwd=repository, capture_output=True, text=True).stdout


def ignored(repository):
    words = ["git", "ls-files", "--others", "--ignored", "--exclude-standard"]
    return subprocess.run(words, cwd=repository, capture_output=True, text=True).stdout.split()


def test_cleaning_keeps_what_is_tracked_and_the_users_own_texts(copy):
    (catalogue,) = copy.rglob("corpora.toml")
    downloads = re.findall(r'^path = "(.+)"$', catalogue.read_text(), re.MULTILINE)
    assert len(downloads) >= 4
    made = [
        ".cache/a/b",
        "dist/a.tar.gz",
        "build/lib/a.py",
        "reports/quick/index.html",
        "reports/o.ipynb",
    ]
    kept = [".venv/bin/python", "lib/minitransformer.egg-info/PKG-INFO"]
    kept += [
        f"data/{name}" for name in (*downloads, f"{downloads[0]}.part", "mine.txt", "my/own.txt")
    ]
    for name in (*made, *kept):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("x")
    assert changed(copy) == "" and set(ignored(copy)) == {*made, *kept}
    assert make("clean", cwd=copy).returncode == 0
    assert changed(copy) == "" and set(ignored(copy)) == set(kept)
    assert make("distclean", cwd=copy).returncode == 0
    assert changed(copy) == "" and ignored(copy) == ["data/mine.txt", "data/my/own.txt"]
    assert sorted(p.name for p in (copy / "data").iterdir() if p.is_dir()) == ["my"]


def test_building_a_wheel_leaves_the_tree_clean(copy, tmp_path):
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*words, "--wheel-dir", str(tmp_path), "."], cwd=copy, check=True)
    assert changed(copy) == "" and list(tmp_path.glob("*.whl"))


def test_no_generated_file_is_tracked():
    words = ["git", "-C", str(ROOT), "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(words, capture_output=True, text=True).stdout == ""


def test_continuous_integration_runs_the_same_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script and re.search(r"^make test$", script, re.MULTILINE)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
