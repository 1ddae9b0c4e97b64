"""Notebooks are run again, changed, and one after another in a kernel: each time it is the same
experiment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paper.parameters import known_parameters, literals
from paper.project import Project, read_notebook
from studies.preflight import check

ROOT = Path(__file__).resolve().parent.parent
TINY = {
    **dict.fromkeys(("steps", "twin_steps", "gqa_steps", "draft_steps", "batch_size"), 2),
    "smeared_steps": 2,
    **dict.fromkeys(("short_steps", "spread_steps", "repeats", "step_repeats", "threads"), 1),
    **dict.fromkeys(("qat_steps", "scratch_steps", "quant_repeats"), 1),
    **dict.fromkeys(("layer_repeats", "qat_batch", "large_layers", "ablation_steps"), 1),
    **dict.fromkeys(("d_model", "draft_width", "train_window"), 32),
    **dict.fromkeys(("certificate_tokens", "speculation_tokens", "requests"), 4),
    **dict.fromkeys(("beam_tokens", "beam_width", "n_heads", "stream_windows"), 2),
    **dict.fromkeys(("train_tokens", "ablation_tokens"), 1200),
    "quant_tokens": 200,
    **dict.fromkeys(("calibration_tokens", "search_tokens", "large_width", "ablation_window"), 64),
    "valid_tokens": 300,
    "test_tokens": 700,
    "context": 160,
    "ablation_test_tokens": 150,
    "cache_tokens": 40,
    "large_vocab": 50,
    "lengths": [2, 4],
    "method_bits": [4],
    "layer_sizes": [128],
    "run_dir": "reports/tiny",
}


CHAPTERS = Project(ROOT).chapters
TWICE = [stage for stage in CHAPTERS for _ in range(2)]


def guard(stage):
    """The chapter's cell that checks the parameters, as <stage>:<cell>."""
    cells = read_notebook(ROOT / "notebooks" / f"{stage}.ipynb")["cells"]
    return next(f"{stage}:{c['id']}" for c in cells if "open_notebook(" in "".join(c["source"]))


GUARDS = [guard(CHAPTERS[0]), guard(CHAPTERS[2])]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Every chapter twice in one kernel, one after another, at tiny parameters that were saved in
    all notebooks; then the guard cells of the first and of another alone."""
    root = tmp_path_factory.mktemp("tiny")
    (root / "notebooks").mkdir()
    (root / "pyproject.toml").write_text("")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        book = json.loads(path.read_text(encoding="utf-8"))
        for cell in book["cells"]:
            if "parameters" in cell["metadata"].get("tags", ()):
                values = literals("".join(cell["source"]), path.name)
                lines = [f"{n} = {TINY.get(n, v)!r}\n" for n, v in values.items()]
                cell["source"] = "".join(lines)
        (root / "notebooks" / path.name).write_text(json.dumps(book), encoding="utf-8")
    folders = {"PYTHONPATH": str(ROOT / "lib"), "IPYTHONDIR": str(root / "ipython")}
    settings = {"MPLBACKEND": "agg", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "one_kernel.py"), str(root), *TWICE, *GUARDS],
        cwd=root,
        env=os.environ | folders | settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_tiny_parameters_are_enough_for_every_chapter():
    check(known_parameters(ROOT / "notebooks") | TINY)


@pytest.mark.pipeline
def test_a_chapter_runs_twice_in_one_kernel_after_any_other(rows):
    assert [row["ran"] for row in rows] == [*TWICE, *GUARDS]
    assert not [f"{row['ran']}: {row['error']}" for row in rows if row["error"]]


@pytest.mark.pipeline
def test_the_second_time_it_is_the_same_experiment(rows):
    for first, second in zip(rows[:-2:2], rows[1:-2:2], strict=True):
        assert first["params"] == second["params"]
        assert all(
            first["params"][name] == TINY.get(name, value)
            for name, value in first["params"].items()
        )


@pytest.mark.pipeline
def test_a_guard_cell_run_again_alone_finds_its_own_parameters(rows):
    for row in rows[-2:]:
        stage = row["ran"].partition(":")[0]
        assert row["params"] == next(r["params"] for r in rows if r["ran"] == stage)
