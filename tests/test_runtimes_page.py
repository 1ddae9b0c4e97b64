"""The lines of docs/runtimes.md work when pasted: each block runs in a folder that holds what an
export and a quick run leave, and all write the same ids."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minitransformer import ModelConfig, QuantScheme, Transformer, generate, load, quantize, save
from minitransformer.corpus import train_words
from minitransformer.export import to_gguf, to_huggingface, to_onnx
from minitransformer.native import wasm
from studies import interop

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "runtimes.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
HF, ORT, ORT_WEB, JS, LLAMA, IMAGE, ENGINE = BLOCKS
README = (ROOT / "README.md").read_text("utf-8").split("## In other runtimes")[1]
SHORT = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SCHEMES = {bits: QuantScheme(bits, "group", 32) for bits in (8, 4)}
NPM = ROOT / ".cache" / "npm"
END = "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)"  # llama.cpp's destructor may not end
needs_node = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder, the words, and the ids that every block should write."""
    words = train_words(" ".join(f"w{i:03d} w{i:03d}" for i in range(60)))
    torch.manual_seed(1)
    shape = dict(norm="rmsnorm", ffn="swiglu", bias=False)
    model = Transformer(ModelConfig(words.get_vocab_size(), 64, context=256, **shape)).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.4)
    folder = tmp_path_factory.mktemp("page")
    export = folder / "dist" / "export"
    to_huggingface(model, export / "hf", words)
    to_onnx(model, export / "onnx", words)
    to_gguf(model, export / "model.gguf", words)
    save(model, folder / "reports" / "quick" / "model-int4", words)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "npm").symlink_to(NPM)
    (folder / "node_modules").symlink_to(NPM / "node_modules")
    (folder / "reports" / "template").symlink_to(ROOT / "reports" / "template")
    engine = folder / wasm.WASM.relative_to(ROOT)
    engine.parent.mkdir(parents=True)
    engine.symlink_to(wasm.WASM)
    ids = generate(model, torch.arange(20, 28)[None], 20, cache=None)[0].tolist()
    assert len(set(ids)) > 15
    return folder, words, ids


def written(block, folder):
    """What a block writes, run in `folder`."""
    language, code = block
    command = [sys.executable, "-c", code + END]
    if language == "js":
        (folder / "block.mjs").write_text(code, "utf-8")
        command = ["node", "block.mjs"]
    where = os.pathsep.join((str(ROOT / "lib"), os.environ.get("PYTHONPATH", "")))
    own = {"PYTHONPATH": where, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_page_has_a_block_for_each_runtime():
    assert [language for language, _ in BLOCKS] == "python python js js python python js".split()
    assert [language for language, _ in SHORT] == ["python", "js", "python"]
    lines = [[line for line in code.splitlines() if line.strip()] for _, code in SHORT]
    assert [len(own) - own[0].startswith(("from", "import")) for own in lines] == [2, 2, 3]
    assert interop.NPM in PAGE and "docs/runtimes.md" in (ROOT / "README.md").read_text("utf-8")


def test_transformers_writes_the_words(made):
    folder, words, ids = made
    assert written(HF, folder)[-28:] == [words.id_to_token(i) for i in ids]


def test_onnx_runtime_writes_the_ids(made):
    folder, _, ids = made
    assert written(ORT, folder) == list(map(str, ids))


@needs_node
@pytest.mark.skipif(not NPM.is_dir(), reason=f"no onnxruntime-web: {interop.NPM}")
def test_onnxruntime_web_writes_the_ids(made):
    folder, _, ids = made
    assert written(ORT_WEB, folder) == list(map(str, ids))


def test_llama_cpp_writes_the_words(made):
    pytest.importorskip("xllamacpp")
    folder, words, ids = made
    assert written(LLAMA, folder) == [words.id_to_token(i) for i in ids[8:]]


@needs_node
@pytest.mark.skipif(
    not (NPM / "node_modules" / "@huggingface" / "transformers").is_dir(),
    reason="no transformers.js: npm install --prefix .cache/npm @huggingface/transformers@4.3.1",
)
@pytest.mark.parametrize("bits", [32, 8, 4])
def test_transformers_js_writes_the_words(bits, made, tmp_path):
    folder, words, ids = made
    onnx, kept = folder / "dist" / "export" / "onnx", tmp_path / "kept"
    if bits < 32:
        small = quantize(load(folder / "reports" / "quick" / "model-int4")[0], SCHEMES[bits])
        shutil.copytree(onnx, kept)
        to_onnx(small, onnx, words)
        ids = generate(small, torch.arange(20, 28)[None], 20, cache=None)[0].tolist()
    try:
        for block in (JS, SHORT[1]):
            assert written(block, folder) == [words.id_to_token(i) for i in ids]
    finally:
        if kept.is_dir():
            shutil.rmtree(onnx)
            shutil.copytree(kept, onnx)


def test_the_readme_writes_the_words(made):
    folder, words, ids = made
    assert written(SHORT[0], folder) == [words.id_to_token(i) for i in ids[8:]]


def test_llama_cpp_answers_the_lines_of_the_readme(made):
    pytest.importorskip("xllamacpp")
    folder, words, _ = made
    said = written(SHORT[2], folder)
    assert 0 < len(said) <= 20 and {*said} <= {*words.get_vocab()}  # drawn: it may end


@needs_node
def test_the_engine_in_node_writes_the_ids(made):
    folder, _, ids = made
    assert written(IMAGE, folder) == []
    assert written(ENGINE, folder) == list(map(str, ids))
