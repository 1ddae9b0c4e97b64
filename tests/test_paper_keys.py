"""What a change reruns: on a copy of this project, by comparing keys; nothing is run."""

import json
import shutil
from pathlib import Path

import pytest

from paper import runner, sources, stages
from paper.files import digest, sha256, write_text
from paper.parameters import resolve
from paper.project import Project
from paper_project import make_project

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"02-train", "03-eval", "04-kv-bench", "05-quant-bench", "06-ablations"}  # use one
TRAINED = {"01-data", "02-train", "03-eval"}  # read no number format


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the project."""
    root, left = (
        tmp_path_factory.mktemp("copy"),
        shutil.ignore_patterns("__pycache__", "*.egg-info"),
    )
    for folder in ("lib", "notebooks"):
        shutil.copytree(ROOT / folder, root / folder, ignore=left)
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, root / name)
    return root


def looked_at(copied, patch):
    """The copy as a project whose library is its own, whatever git says of it."""
    patch.setattr(sources, "LIB", copied / "lib")
    patch.setattr(stages, "gates", lambda project: None)
    return Project(copied)


@pytest.fixture
def project(copied, monkeypatch):
    """The copy, in which every chapter has just run; what a test changes in it is mended after."""
    kept = {path: path.read_bytes() for path in files(copied)}
    yield looked_at(copied, monkeypatch)
    for path in files(copied):
        if path not in kept:
            path.unlink()
        elif path.read_bytes() != kept[path]:
            path.write_bytes(kept[path])


def files(copied):
    return [p for p in copied.rglob("*") if p.is_file() and "reports" not in p.parts]


def keys(project):
    """Stage -> (its key, the hash of what it computes with)."""
    params, run_dir = resolve(project.notebooks), project.reports / "quick"
    about = {"key": "k", "seconds": 1, "params": {}, "artefacts": {}}
    for stage in project.stages:
        stages.write_stamp(run_dir, stage, **about)
    found = {stage: stages.parts(project, stage, params, run_dir) for stage in project.stages}
    return {stage: (digest(parts), stages.computation(parts)) for stage, parts in found.items()}


@pytest.fixture(scope="module")
def before(copied):
    """The keys of the copy as it is."""
    with pytest.MonkeyPatch.context() as patch:
        return keys(looked_at(copied, patch))


@pytest.fixture
def changed(project, before):
    """Changes files of lib/; returns (stages that are to run again, those of them that compute
    something else)."""

    def change(*names):
        for name in names:
            path = project.root / "lib" / name
            comment = "//" if path.suffix == ".c" else "#"
            path.write_text(f"{path.read_text(encoding='utf-8')}\n{comment} changed\n", "utf-8")
        pairs = [(stage, found, before[stage]) for stage, found in keys(project).items()]
        return tuple({stage for stage, now, then in pairs if now[i] != then[i]} for i in (0, 1))

    return change


def test_without_a_change_nothing_runs_again(changed):
    assert changed() == (set(), set())


def test_a_method_of_quantization_trains_nothing_again(changed):
    names = ("gptq", "accelerate", "kernels", "mixed", "equalize")
    again, computed = changed(*(f"minitransformer/quant/{name}.py" for name in names))
    assert {"05-quant-bench", "A2-quant"} & computed and not again & TRAINED


def test_what_serves_and_measures_trains_nothing_again(changed):
    names = ("decode/scheduler.py", "bench/timing.py", "native/engine.c")
    again, _ = changed(*(f"minitransformer/{name}" for name in names))
    assert not again & {"01-data", "02-train"}


def test_what_is_no_python_counts_for_those_who_read_it(changed):
    assert "04-kv-bench" in changed("minitransformer/native/engine.c")[1]
    assert "01-data" in changed("minitransformer/corpus/corpora.toml")[1]


def test_the_model_is_what_all_that_use_one_depend_on(changed):
    assert MODELS <= changed("minitransformer/model.py")[1]


def test_a_drawing_is_drawn_again_and_nothing_is_computed(changed):
    again, computed = changed("paper/canvas.py", "paper/labels.py", "report/plots.py")
    assert "02-train" in again and computed == set()


def test_the_runner_reruns_nothing(changed):
    assert all((ROOT / "lib" / name).is_file() for name in sources.RUN_SIDE)
    assert changed(*sorted(sources.RUN_SIDE)) == (set(), set())


def test_a_new_file_that_a_package_passes_on_reruns_nothing(project, before):
    wing = project.root / "lib" / "minitransformer" / "quant"
    (wing / "new.py").write_text("def better(): ...\n")
    (wing / "__init__.py").write_text(
        (wing / "__init__.py").read_text() + "from .new import better"
    )
    assert keys(project) == before


def test_a_study_reruns_the_chapters_that_import_it(project, changed):
    name = next(
        name
        for name in sorted(path.stem for path in (project.root / "lib" / "studies").glob("*.py"))
        if any(f"import {name}" in text or f", {name}" in text for text in code(project).values())
    )
    again, _ = changed(f"studies/{name}.py")
    assert again and {s for s, text in code(project).items() if name in text} >= again - {"report"}


def code(project):
    return {
        stage: "\n".join(stages.notebook_source(project.notebook(stage))["code"])
        for stage in project.stages
    }


@pytest.mark.parametrize("what", ["a sentence", "a line of code", "a parameter", "the lock"])
def test_code_parameters_and_lock_are_computed_with_and_sentences_are_not(project, before, what):
    path = project.notebook("02-train")
    book = json.loads(path.read_text(encoding="utf-8"))
    if what == "the lock":
        write_text(project.root / "requirements.lock", "torch==9.9.9\n")
    elif what == "a parameter":
        (setting,) = [c for c in book["cells"] if "parameters" in c["metadata"].get("tags", ())]
        setting["source"] = "".join(setting["source"]) + "\nextra = 3  # new"
    else:
        kind = "code" if "code" in what else "markdown"
        book["cells"].append({"cell_type": kind, "id": "new", "metadata": {}, "source": "more = 1"})
    if what != "the lock":
        path.write_text(json.dumps(book), encoding="utf-8")
    after = keys(project)
    assert after["02-train"][0] != before["02-train"][0]
    assert (after["02-train"][1] == before["02-train"][1]) == (what == "a sentence")
    assert (after["01-data"] == before["01-data"]) == (what != "the lock")


# What a stage resumes from


@pytest.fixture
def finished(tmp_path):
    """(project, run folder, working folder) of a toy whose second chapter has left checkpoints."""
    project = Project(make_project(tmp_path))
    path = project.notebook("02-train")
    book = json.loads(path.read_text())
    book["metadata"]["paper"]["resumes"] = ["train/*.pt"]
    path.write_text(json.dumps(book))
    run_dir = tmp_path / "run"
    for name in ("train/model.pt", "train/twin.pt", "train/log.txt"):
        write_text(run_dir / name, name)
    hashes = {p.relative_to(run_dir).as_posix(): sha256(p) for p in run_dir.rglob("*.*")}
    about = {"key": "k", "params": {}, "seconds": 1, "computation": "same"}
    stages.write_stamp(run_dir, "02-train", artefacts=hashes, **about)
    return Project(tmp_path), run_dir, tmp_path / "work"


def carried(finished, computation="same"):
    project, run_dir, work = finished
    runner.carry_over(project, "02-train", run_dir, work, computation)
    return {p.relative_to(work).as_posix(): p.read_text() for p in work.rglob("*") if p.is_file()}


def test_checkpoints_are_kept_where_only_words_changed(finished):
    assert carried(finished) == {n: n for n in ("train/model.pt", "train/twin.pt")}


def test_checkpoints_of_another_computation_are_not(finished):
    assert carried(finished, "another") == {}


def test_a_chapter_that_goes_on_says_what_the_run_took_that_it_goes_on_from(finished):
    project, run_dir, work = finished
    assert runner.carry_over(project, "02-train", run_dir, work, "another") == 0
    assert runner.carry_over(project, "02-train", run_dir, work, "same") == 1
    assert runner.carry_over(project, "02-train", run_dir, work, "same") == 0  # all there already


def test_a_damaged_checkpoint_and_one_that_a_later_try_wrote_are_not(finished):
    _, run_dir, work = finished
    write_text(run_dir / "train/twin.pt", "half")
    write_text(work / "train/model.pt", "of the interrupted try")
    assert carried(finished) == {"train/model.pt": "of the interrupted try"}


def test_a_chapter_that_says_nothing_of_resuming_and_one_that_never_ran_keep_nothing(finished):
    project, run_dir, work = finished
    runner.carry_over(project, "01-data", run_dir, work, "same")
    path = project.notebook("02-train")
    path.write_text(path.read_text().replace("resumes", "timed"))
    runner.carry_over(Project(project.root), "02-train", run_dir, work, "same")
    assert not work.exists()
