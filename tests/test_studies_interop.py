"""Interop: hosts that are there give PyTorch's tokens, those that are not say what brings them, and
the figures are those of the samples."""

import queue
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from minitransformer import ModelConfig, Transformer, save
from minitransformer.corpus.tokenizers import train_words
from studies import hosts, interop, interop_told, native

ROOT = Path(__file__).resolve().parent.parent
ORT_WEB = ROOT / ".cache" / "npm" / "node_modules" / "onnxruntime-web" / "dist"
BROWSER = next(filter(None, map(shutil.which, hosts.BROWSERS)), None)
PROMPT, NEW = [5, 9, 4, 30, 12, 7], 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model's folder, but for the training."""
    words = train_words(" ".join(f"w{i:03d} w{i:03d}" for i in range(60)))
    torch.manual_seed(4)
    model = Transformer(ModelConfig(words.get_vocab_size(), d_model=64, context=64)).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.4)
    folder = tmp_path_factory.mktemp("interop")
    save(model, folder / "model", words)
    return folder


def told(folder, only, tmp_path, web=ROOT, repeats=1):
    ask = partial(interop.measure, tmp_path / "files", web, folder / "model", PROMPT, NEW)
    found = ask(repeats, 3, only)
    samples, told = (one.assign(process=0) for one in found.values())
    return interop.table(samples, told), samples


def rows_of(table, word):
    return table[table.runtime.str.contains(word, regex=False)]


def all_equal(rows):
    """Every format of both models ran, and said what PyTorch says, logit by logit."""
    assert len(rows) == 6 and list(rows.reason) == [""] * 6
    assert (rows.equal == rows.of).all() and (rows.of == NEW).all()
    assert rows.worst.between(0, 1e-4).all() and (rows.worst > 0).any()
    return True


def test_what_runs_in_this_process_says_what_pytorch_says(folder, tmp_path):
    table, samples = told(folder, ["ONNX Runtime"], tmp_path, repeats=2)
    for name in (interop.EAGER, "ONNX Runtime"):
        rows = rows_of(table, name)
        assert (rows.equal == NEW).all() and rows.worst.max() < 1e-4
        assert (rows.tokens_per_second > 0).all()
        small = interop_told.bytes_of(table, "model" if name == interop.EAGER else "onnx")
        assert small["int4"] < small["int8"] < small["FP32"]
    assert set(samples.groupby(["model", "format", "runtime"]).size()) == {2}
    left = rows_of(table, "transformers")
    assert set(left.reason) == {"not asked for: --set 'interop=[\"all\"]'"}
    assert interop_told.share(table, "transformers") is None
    assert interop_told.share(table, "ONNX Runtime") == 100


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_the_engine_in_node_says_what_pytorch_says(folder, tmp_path):
    table, _ = told(folder, ["WebAssembly (node)"], tmp_path)
    assert all_equal(rows_of(table, "WebAssembly (node)"))


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.skipif(not ORT_WEB.is_dir(), reason=f"no onnxruntime-web: {interop.NPM}")
def test_the_graph_in_node_says_what_pytorch_says(folder, tmp_path):
    table, _ = told(folder, ["onnxruntime-web WASM (node)"], tmp_path)
    assert all_equal(rows_of(table, "WASM (node)"))


@pytest.mark.pipeline
@pytest.mark.skipif(not BROWSER, reason="chromium is not installed: apt install chromium")
def test_a_browser_says_what_pytorch_says_and_ends_with_us(folder, tmp_path):
    """The engine; and the ONNX graph on WASM and on WebGPU, where onnxruntime-web is installed."""
    table, _ = told(folder, ["browser"], tmp_path)
    assert all_equal(rows_of(table, "WebAssembly (browser)"))
    if not ORT_WEB.is_dir():
        missing = rows_of(table[table.runtime.str.contains("browser")], "onnxruntime-web")
        assert set(missing.reason) == {f"onnxruntime-web is not installed: {interop.NPM}"}
        pytest.skip(f"no onnxruntime-web: {interop.NPM}")
    assert all_equal(rows_of(table, "WASM (browser)"))
    on_gpu = rows_of(table, "WebGPU")
    assert all_equal(on_gpu) and (on_gpu.adapter != "").all()
    assert on_gpu[on_gpu.software].tokens_per_second.isna().all()  # says nothing of WebGPU's speed


def test_what_is_absent_says_what_brings_it(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(hosts.shutil, "which", lambda name: None)
    for name in ("xllamacpp", "onnxruntime", "transformers"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    table, samples = told(folder, ["all"], tmp_path, web=tmp_path)
    reasons = {
        "node": "node is not installed: apt install nodejs",
        "WebAssembly (browser)": "chromium is not installed: apt install chromium",
        "onnxruntime-web": f"onnxruntime-web is not installed: {interop.NPM}",
        "ONNX Runtime": 'onnxruntime is not installed: pip install ".[ort]"',
        "transformers": 'transformers is not installed: pip install "transformers>=5"',
    }
    for word, reason in reasons.items():
        rows = rows_of(table, word)
        assert reason in set(rows.reason) and not rows.of.any(), word
    llama = rows_of(table, "llama.cpp").set_index(["model", "format"]).reason
    assert "of Llama's shape" in llama and "pip install xllamacpp" in llama[interop.LLAMA, "FP32"]
    assert "cannot be rewritten" in llama[interop.OWN, "int4"]
    assert {*samples.runtime} <= {interop.EAGER, interop.ENGINE}
    shown = interop_told.shown(table)
    assert len(shown) == 2 * len(interop.RUNTIMES) and (shown["FP32: equal"] == "–").any()


class Faulty:
    """A runtime whose third token is not PyTorch's."""

    def __init__(self, case, tokens, shift):
        self.case, self.tokens, self.shift = case, tokens, shift

    def __call__(self, new, seen=None):
        wrong = [*self.tokens]
        wrong[2] += 1
        if seen is not None:
            seen.extend(interop.steps(self.case.model, self.case.prompt, self.tokens) + self.shift)
            seen[4] = seen[4] + 9  # after the text has parted: not comparable
        return wrong[:new], 0.5


def test_a_divergence_is_counted_and_only_equal_text_compared(folder, tmp_path, monkeypatch):
    from minitransformer import generate, load

    model, words = load(folder / "model")
    case = interop.Case(tmp_path, model, words, PROMPT, ROOT)
    tokens = generate(model, case.ids, NEW, cache=None)[0, len(PROMPT) :].tolist()
    faulty = interop.Runtime("faulty", "saved", lambda case: Faulty(case, tokens, 0.25))
    monkeypatch.setattr(interop, "RUNTIMES", (faulty,))
    ((_, row, run),) = interop.examined(case, NEW, ["all"])
    assert row["equal"] == 2 and row["of"] == NEW and run is not None
    assert row["worst"] == pytest.approx(0.25, abs=1e-5)


def test_the_logits_compared_are_those_of_steps_over_a_cache(folder, tmp_path, monkeypatch):
    from minitransformer import load

    def off(model, ids, cache):
        return prefill(model, ids, cache) + (0.5 if cache.pos > ids.shape[1] else 0.0)

    model, words = load(folder / "model")
    case = interop.Case(tmp_path, model, words, PROMPT, ROOT)
    names = {interop.EAGER} if native.missing() else {interop.EAGER, interop.ENGINE}
    ours = [it for it in interop.RUNTIMES if it.name in names]
    monkeypatch.setattr(interop, "RUNTIMES", ours)
    prefill = interop.prefill
    right = [row["worst"] for _, row, _ in interop.examined(case, NEW, ["all"])]
    monkeypatch.setattr(interop, "prefill", off)
    wrong = [row["worst"] for _, row, _ in interop.examined(case, NEW, ["all"])]
    assert len(right) == len(names) and max(right) < 1e-4
    assert wrong == pytest.approx([0.5] * len(names), abs=1e-3)


def test_log_probabilities_of_some_tokens_are_compared_with_those_of_all():
    logits = np.array([[1.0, 2.0, 3.0, -1.0]])
    wanted = torch.tensor(logits[0]).log_softmax(-1)
    seen = [{2: float(wanted[2]), 1: float(wanted[1]) + 0.125}]
    assert interop.worst(seen, logits, 1) == pytest.approx(0.125)


def test_a_divergence_is_of_whole_distributions():
    logits = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    own = torch.tensor(logits).log_softmax(-1)
    seen = [dict(enumerate(row)) for row in own.tolist()]
    assert interop.divergence(seen, logits) == pytest.approx(0, abs=1e-6)
    other = torch.tensor([0.5, 0.25, 0.25]).log()
    wanted = float((own[1].exp() * (own[1] - other)).sum())
    seen[1] = dict(reversed([*enumerate(other.tolist())]))
    assert interop.divergence(seen, logits) == pytest.approx(wanted, rel=1e-5) and wanted > 0.05
    assert np.isnan(interop.divergence([{0: -1.0}, {1: -1.0}], logits))
    assert np.isnan(interop.divergence([*logits], logits))
    rows = [("llama.cpp", "FP32", 9.0), ("llama.cpp", "int8", 1e-3), ("llama.cpp", "int4", 2.31e-3)]
    told = pd.DataFrame([*rows, ("a", "int8", 5.0)], columns=["runtime", "format", "kl"])
    said = interop_told.parted(told.assign(equal=[9, 4, 9, 9], of=9))
    assert "**13 of 18** tokens are equal, and over the 14 steps with equal text" in said
    assert "is at most 0.0024 nats;" in said  # rounded up


def test_the_tables_are_of_the_samples():
    names = ["a", "llama.cpp"]
    rows = [
        dict(model=interop.OWN, format=f, runtime=r, equal=e, of=9, worst=w, bytes=2048, reason="")
        for f, r, e, w in (
            ("FP32", "a", 9, 1e-6), ("FP32", "llama.cpp", 9, 3e-6),
            ("int8", "a", 9, 2e-6), ("int8", "llama.cpp", 4, 0.1),
        )
    ]  # fmt: skip
    rows.append({**rows[0], "runtime": "b", "equal": 0, "of": 0, "reason": "not there"})
    seconds = {0: 9.0, 1: 1.0, 2: 3.0, 3: 1.5}
    keys = ("model", "format", "runtime")
    samples = [
        {key: row[key] for key in keys} | {"repeat": i, "tokens": 9, "seconds": s}
        for row in rows[:4]
        for i, s in seconds.items()
    ]
    told = pd.DataFrame(rows).assign(process=0, adapter="", software=False)
    table = interop.table(pd.DataFrame(samples), told)
    assert list(table.tokens_per_second[:4]) == [6.0] * 4  # of the last three: 9, 3 and 6 a second
    assert interop_told.counted(table) == (27, 27)
    assert (
        interop_told.worst_of(table, ["FP32"]) == 3e-6
        and interop_told.worst_of(table, ["int8"]) == 2e-6
    )
    assert interop_told.share(table, "llama.cpp", "FP32") == 100
    assert interop_told.parted(table[:3]) == ""
    assert "**4 of 9** tokens are equal" in interop_told.parted(table.assign(kl=0.1))
    webgpu = table.assign(adapter=["", "swift", *[""] * (len(table) - 2)])
    assert interop_told.adapters(table) == "" and interop_told.adapters(webgpu) == "swift"
    assert interop_told.adapters(webgpu.assign(software=True)) == "swift, in software"
    assert "int8" not in {*interop_told.drawn(table).format}
    speeds = interop_told.sizes(table).set_index("runtime")
    assert list(speeds.index) == names and speeds.loc["a", "FP32, KiB"] == 2
    assert "27 of 27** greedy tokens of 2 runtimes" in interop_told.summary(table)
    assert interop_told.summary(table).endswith("every step (of llama.cpp in FP32 only).")
    others = table[table.runtime != "llama.cpp"]
    assert interop_told.summary(others).endswith("recomputes every step.")
    shown = interop_told.shown(table).set_index("runtime")
    assert shown.loc["llama.cpp", "int8: equal"] == "4 of 9"
    assert shown.loc["b", "why there are none"] == "not there"


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_a_host_tells_an_error_in_one_line_and_goes_on():
    node = hosts.Node()
    scripts = node.place(ROOT / "reports" / "template")
    start = {"name": "x", "kind": "engine", "scripts": scripts, "wasm": "none", "image": "none"}
    for _ in range(2):
        with pytest.raises(hosts.HostError, match="^ENOENT: no such file or directory"):
            node.ask(start=start)
    node.close()
    assert node.process.returncode == 0


def test_a_page_fetches_what_was_placed_and_nothing_else(tmp_path):
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "c.mjs").write_bytes(b"x")
    page = object.__new__(hosts.Browser)
    page.files = {"/hosts.mjs": hosts.SCRIPT}
    one, folder = page.place(tmp_path / "a.bin"), page.place(tmp_path / "in")
    assert page.place(tmp_path / "a.bin") == one and page.found(one) == tmp_path / "a.bin"
    assert page.found(f"{folder}/c.mjs") == tmp_path / "in" / "c.mjs"
    for name in ("/b.bin", f"{folder}/../b.bin", f"{folder}/", folder, "/etc/passwd", "/"):
        assert page.found(name) is None, name


def test_a_page_that_was_silent_once_is_asked_no_more(monkeypatch):
    page = object.__new__(hosts.Browser)
    page.questions, page.answers, page.lost = queue.Queue(), queue.Queue(), ""
    monkeypatch.setattr(hosts, "SECONDS", 0.01)
    for _ in range(2):
        with pytest.raises(hosts.HostError, match="^chromium gave no answer within 0.01 s$"):
            page.ask(run={})
        page.answers.put("{}")  # too late
    assert page.questions.qsize() == 1


def test_the_script_is_read_by_node(tmp_path):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    done = subprocess.run(["node", "--check", str(hosts.SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
