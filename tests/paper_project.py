"""A project of tiny notebooks in a temporary folder, for the tests of the runner."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from paper import stages
from paper.files import sha256, write_text

PARAMETERS = """profile = "quick"  # name of the parameter set
run_dir = ""  # folder of the run
seed = 42  # seed of the corpus
salt = "ab12"  # salt of the corpus
corpus = ""  # path or name of a text
lr = 0.0  # peak learning rate
verbose = False  # more output
sizes = [10, 50]  # lengths
"""
SETTING = """import json, os, pathlib
out = pathlib.Path(os.environ["MINITRANSFORMER_OUT"])
"""
DATA = (
    SETTING
    + """(out / "corpus.json").write_text(json.dumps({"seed": seed}))
(out / "train.jsonl").write_text('{"step": 1, "tokens_per_s": %r}' % __import__("time").time())"""
)
TRAIN = (
    SETTING
    + """seed = json.loads(pathlib.Path("..", run_dir, "corpus.json").read_text())["seed"]
(out / "model").mkdir()
(out / "model" / "config.json").write_text(json.dumps({"seed": seed, "steps": steps}))
print("10 %\\r20 %\\rtrained")
if steps == 66: os.kill(os.getpid(), 9)
if steps == 67: raise ValueError("steps 67 is bad:\\n  give 3")
if steps == 68: raise OSError(28, "No space left on device")"""
)
REPORT = SETTING + '(out / "headline.json").write_text("[]")'


def write_notebook(path, parameters, *cells, **declared):
    """A notebook with a `parameters` cell; `cells` are sources, with ids cell-0, cell-1, ...;
    `declared` is what it says of itself as a chapter (needs, targets, timed)."""
    kernel = {"name": "nowhere", "display_name": "Nowhere", "language": "python"}
    book = new_notebook(metadata={"kernelspec": kernel, "paper": {"name": path.stem, **declared}})
    book.cells = [
        new_markdown_cell("# Title\n\n*Question?*", id="title"),
        new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}),
        *(new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(cells)),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)


def make_project(root):
    """01-data, 02-train and report, a lock, and a profile `paper` whose lr is YAML's famous
    string."""
    folder, train = root / "notebooks", PARAMETERS + "steps = 3  # optimizer steps\n"
    write_notebook(folder / "01-data.ipynb", PARAMETERS, DATA, targets=["data", "tokenize"])
    needs = {"needs": ["01-data"], "targets": ["train"]}
    write_notebook(folder / "02-train.ipynb", train, TRAIN, **needs)
    needs = {"needs": ["*"], "targets": ["report"]}
    write_notebook(folder / "report.ipynb", PARAMETERS, REPORT, **needs)
    (root / "notebooks" / "profiles").mkdir()
    (root / "notebooks" / "profiles" / "paper.yaml").write_text("lr: 1e-3\nseed: 7\n")
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "requirements.lock").write_text("torch==2.13.0\n")
    return root


def finish(project, stage, params, run_dir, **artefacts):
    """As if `stage` had run: its artefacts and its stamp."""
    for name, text in artefacts.items():
        write_text(run_dir / name, text)
    stages.write_stamp(
        run_dir,
        stage,
        key=stages.key(project, stage, params, run_dir),
        seconds=1.0,
        params=stages.stage_params(project, stage, params),
        artefacts={name: sha256(run_dir / name) for name in artefacts},
    )
