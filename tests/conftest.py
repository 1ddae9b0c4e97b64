"""What holds for every test: the examples of property tests are few and the same in every run; and
a project whose notebooks are not really run.

HYPOTHESIS_PROFILE=default looks for others, as many as hypothesis likes."""

import json
import multiprocessing.forkserver
import os
from pathlib import Path

import pytest
from hypothesis import settings

from paper import execution, html
from paper.files import write_json, write_text
from paper.notebook import OUT
from paper.project import Project
from paper_project import make_project

settings.register_profile("fixed", max_examples=40, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(scope="session")
def forking():
    """A context of processes that fork from a server which has imported what takes long; the usual
    one where a system cannot."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.forkserver._forkserver
    server._stop()  # another test may have started it with nothing imported
    server.set_forkserver_preload(["torch", "pandas", "scipy.stats", "pytest", "psutil"])
    return multiprocessing.get_context("forkserver")


@pytest.fixture
def quick_processes(forking, monkeypatch):
    """The processes of studies are new, and do not import torch each time."""
    from studies import processes, workers

    for module in (processes, workers):
        monkeypatch.setattr(module, "get_context", lambda _: forking)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose notebooks "run" by writing their parameters."""
    project = Project(make_project(tmp_path / "p"))
    monkeypatch.chdir(project.root)
    monkeypatch.delenv("DEBUG", raising=False)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    ran = []

    def execute(source, part, parameters, kernel_manager_class, **_):
        stage = part.rsplit(".part.ipynb")[0].rsplit(".", 1)[1]
        ran.append(stage)
        out = Path(kernel_manager_class.environment[OUT])
        write_json(
            out / "model" / "config.json" if stage == "02-train" else out / f"{stage}.json",
            parameters,
        )
        write_text(out / "figures" / f"{stage}.csv", "n\n1\n")
        write_json(out / "claims" / f"{stage}.json", [{"id": stage, "verdict": "pass"}])
        book = json.loads(Path(source).read_text())
        for cell in book["cells"]:
            if cell["cell_type"] == "code":
                cell["execution_count"] = 1
                result = {
                    "output_type": "execute_result",
                    "data": {"text/plain": "1"},
                    "metadata": {},
                }
                cell["outputs"] = [result | {"execution_count": 1}]
        injected = {
            "cell_type": "code",
            "id": "x",
            "metadata": {"tags": ["injected-parameters"]},
            "source": "# Parameters",
        }
        book["cells"].insert(2, injected | {"execution_count": 2, "outputs": []})
        write_json(Path(part), book)

    monkeypatch.setattr(execution, "execute_notebook", execute)
    monkeypatch.setattr(
        html, "build_html", lambda run_dir: write_text(run_dir / "index.html", f"<p>{len(ran)}")
    )
    project.__dict__["ran"] = ran
    return project
