"""The lines of README.md and docs/scale.md work when pasted.

Run for real: the Python lines (in a folder that holds what a quick run leaves, with an untrained
model), `make help`, the library's installation up to its wheel (tests/test_environment.py). Only
checked, because they take minutes or a terminal: that every other command's target, program, file,
profile, corpus and parameter exist, and that make accepts its variables.
"""

import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from minitransformer import ModelConfig, Transformer, save
from minitransformer.corpus import train_words
from minitransformer.export import to_huggingface
from paper import __main__ as command
from paper import picture, readme, targets
from paper.files import read_json
from paper.project import Project

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = README + (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGES, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for language, block in BLOCKS
    if language == ""
    for line in block.splitlines()
    if line.strip()
]
INLINE = re.findall(r"`((?:make|pip|python3?|sudo) [^`]+)`", PAGES)
FILES = (ROOT / "lib/minitransformer/corpus/corpora.toml", ROOT / "data/corpora.toml")
CATALOGUE = tomllib.loads(next(p for p in FILES if p.is_file()).read_text(encoding="utf-8"))
WORDS = "the quick brown fox jumps over the lazy dog and runs away from it again".split()


def program(word):
    """The console script or module behind `.venv/bin/<name>` and `.venv\\Scripts\\<name>`."""
    return re.fullmatch(r"\.venv[/\\](?:bin|Scripts)[/\\](\w+)", word)[1]


def words(line):
    return shlex.split(line.replace("\\", "/"), comments=True)


def make(*arguments):
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
    )


def check_settings(arguments, tmp_path):
    """What a `python -m paper` line says is read without an error, as before a run."""
    text = tmp_path / "any.txt"
    text.write_text(" ".join(WORDS * 2000), encoding="utf-8")
    named = [f"corpus={name}" for name in CATALOGUE]
    arguments = [word.replace("path/to/any.txt", str(text)) for word in arguments]
    arguments = [word.replace("path/to/folder", str(tmp_path)) for word in arguments]
    if set(named) & set(arguments):  # known, and not downloaded for a test
        arguments = [word for word in arguments if word not in ("--set", *named)]
    options = command.arguments().parse_args(arguments)
    targets.read(targets.of_model(Project(ROOT), options), options)


def test_the_page_has_the_blocks_that_are_tested():
    assert [language for language, _ in BLOCKS].count("python") == 3 and len(COMMANDS) > 10
    assert {"", "js", "python"} == {language for language, _ in BLOCKS}


@pytest.mark.parametrize("line", [c for c in [*COMMANDS, *INLINE] if c.startswith("make ")])
def test_a_make_command_is_accepted(line, tmp_path):
    _, target, *variables = words(line)
    done = make("-n", target, "VENV=none", f"PYTHON={sys.executable}", *variables)
    assert done.returncode == 0, done.stderr
    called = shlex.split(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else []
    if "paper" in called and target not in ("test", "clean-cache"):
        check_settings(called[called.index("paper") + 1 :], tmp_path)


@pytest.mark.parametrize("line", [c for c in COMMANDS if not c.startswith("make ")])
def test_another_command_names_what_exists(line, tmp_path):
    first, *rest = words(line)
    if first == "py":
        assert rest[0].removeprefix("-3.") in "11 12 13 14".split() and (ROOT / rest[1]).is_file()
    elif rest[0].endswith(".py"):
        assert program(first) == "python" and (ROOT / rest[0]).is_file()
    elif first == "git":
        assert rest[:2] == ["clean", "-fdX"]  # only what is ignored
    elif rest[0] == "-m" and rest[1] == "paper":
        assert program(first) == "python"
        check_settings(rest[2:], tmp_path)
    elif module := next((word for word in rest if word.startswith("minitransformer.")), ""):
        # ours, under python or torchrun: what it is given is understood
        assert program(first) in ("python", "torchrun") and rest[rest.index(module) - 1] == "-m"
        package = (ROOT / "lib" / module.replace(".", "/")).is_dir()
        own = importlib.import_module(f"{module}.__main__" if package else module)
        own.parse(rest[rest.index(module) + 1 :])
    elif rest[0] == "-m":
        assert program(first) == "python" and importlib.util.find_spec(rest[1])
        given = [word for word in rest[2:] if not word.startswith("-") and not word.isdigit()]
        assert all((ROOT / word).exists() for word in given)
    else:
        scripts = importlib.metadata.entry_points(group="console_scripts")
        assert program(first) == "papermill" and "papermill" in {s.name for s in scripts}
        notebook, out, _, name, value = rest
        assert (ROOT / notebook).is_file()
        check_settings(["report", "--profile", "quick", "--set", f"{name}={value}"], tmp_path)
        ignored = ["git", "-C", str(ROOT), "check-ignore", "-q", out]
        assert (ROOT / out).parent.is_dir() and subprocess.run(ignored).returncode in (0, 128)


@pytest.mark.parametrize("line", [c for c in INLINE if not c.startswith("make ")])
def test_a_command_in_a_sentence_is_one_of_these(line):
    assert line in {
        "sudo apt install make python3-venv",
        "python3 -m pip cache purge",
        "python -m paper <target>",
        "pip install .",
        'pip install ".[ort]"',
        'pip install ".[export]"',
        'pip install ".[scale]"',
    }


def test_help_runs():
    assert "VARIABLES" in make("help").stdout


def python_lines(place, folder):
    """The output of a block of Python in the README, run in `folder`."""
    code = [block for language, block in BLOCKS if language == "python"][place]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "lib"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def untrained(text):
    tokenizer = train_words(text)
    torch.manual_seed(0)
    cfg = ModelConfig(vocab_size=tokenizer.get_vocab_size(), d_model=64, context=64)
    return Transformer(cfg), tokenizer


def test_the_python_lines_run_after_a_quick_run(tmp_path):
    run = tmp_path / "reports" / "quick"
    run.mkdir(parents=True)
    (run / "corpus.txt").write_text(" ".join(WORDS * 20) + "\n", encoding="utf-8")
    model, tokenizer = untrained(" ".join(WORDS * 20))
    save(model, run / "model", tokenizer)
    said = python_lines(0, tmp_path)
    assert said[:12] == WORDS[:12] and len(said) == 32


def test_the_python_lines_run_after_an_export(tmp_path):
    model, tokenizer = untrained(" ".join(f"w{i} w{i}" for i in range(60)))
    to_huggingface(model, tmp_path / "dist" / "export" / "hf", tokenizer)
    said = python_lines(1, tmp_path)
    assert 0 < len(said) <= 20 and {*said} <= {*tokenizer.get_vocab()}


def test_every_cache_kind_is_named():
    from minitransformer.cache import KINDS

    said = re.search(r"^`cache` is also (.*)$", README, re.MULTILINE)[1] + "`int8`"
    assert set(re.findall(r"`([^`]+)`", said)) == {*KINDS, "None"}


def test_every_path_of_the_page_exists():
    rows = re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)
    wings = re.findall(
        r"`(\w+/|model\.py)`", README.split("`lib/minitransformer/`")[1].split("|")[1]
    )
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(rows) > 5 and len(wings) > 5 and len(links) > 2
    for name in (*rows, *links, *(f"lib/minitransformer/{wing}" for wing in wings)):
        assert (ROOT / name.replace("<run>", "reference")).exists(), name


def test_the_picture_is_small_and_shown_beside_the_numbers_of_its_own_run_alone():
    path = ROOT / picture.PLACE
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 200_000
    run = read_json(ROOT / "reports" / "reference" / "run.json")
    assert (readme.SHOWN in README) == (picture.run_of(path) == picture.stamp(run))
    assert README.count(picture.PLACE.as_posix()) == README.count(readme.SHOWN)
    assert "paper picture" in make("-n", "picture", "VENV=none").stdout


def test_the_requirements_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "Python 3.11 to 3.14" in README and project["requires-python"] == ">=3.11,<3.15"
