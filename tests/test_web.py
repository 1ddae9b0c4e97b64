"""engine.c as WebAssembly and the page's script, in node: the tokens are those of PyTorch."""

import hashlib
import json
import shutil
import subprocess
from ctypes import sizeof
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from minitransformer.bench import TimeModel, flops, weights_read
from minitransformer.corpus import decode, encode
from minitransformer.corpus.tokenizers import train_bpe, train_characters, train_words
from minitransformer.decode import Sampling, generate
from minitransformer.decode.sampling import distribution
from minitransformer.export.web import to_web, wasm32
from minitransformer.model import ModelConfig, Transformer
from minitransformer.native import structs, wasm
from minitransformer.quant import QuantScheme, quantize
from native_models import apart, ids_of
from studies import hosts, latency
from studies.attention import probabilities

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "reports" / "template"
STEPS = 24
SMALL = dict(vocab_size=33, d_model=32, n_heads=4, context=48)
CONFIGS = {
    "as the paper's": ModelConfig(**SMALL),
    "llama": ModelConfig(**SMALL, n_layers=2, n_kv_heads=2, norm="rmsnorm", ffn="swiglu"),
    "sinusoidal, tied": ModelConfig(**SMALL, position="sinusoidal", tied=True, ffn="gelu"),
    "normed queries": ModelConfig(**SMALL, qk_norm=True, bias=False, ffn="relu2", n_layers=3),
    "smeared": ModelConfig(**SMALL, smeared_keys=True, n_layers=2),
    "odd": ModelConfig(**SMALL | dict(d_model=30, n_heads=3), n_kv_heads=1, d_ff=37, tied=True),
}
FORMATS = {
    "fp32": None,
    "int8": QuantScheme(8),
    "int4": QuantScheme(4, "group", 32),
    "nf4": QuantScheme(4, "group", 16, codebook="nf4"),
    "w8a8": QuantScheme(8, activation_bits=8),
    "asymmetric": QuantScheme(4, "group", 8, symmetric=False),
}
CASES = [(config, scheme) for config in CONFIGS for scheme in ("fp32", "int8", "int4")]
CASES += [("llama", scheme) for scheme in ("nf4", "w8a8", "asymmetric")]
TEXT = "The cat's hat, and 12 mats.\nIt's naïve – “quoted” 日本語 it isn't\n" * 3
TEXTS = [
    *("the cat sat", "The  cat's hat,\n and 12 mats. ", "naïve 👨‍👩‍👧 e\u0301 日本語\t!", ""),
    *("  two spaces", "It's\u00a0naïve\u2003x", "unknown wörds\n\n", "mat"),
]
TOKENIZERS = {
    "word": lambda: train_words(TEXT),
    "words and lines": lambda: train_words(TEXT, lines=True),
    "character": lambda: train_characters(TEXT),
    "bpe": lambda: train_bpe(TEXT, 300),
}
DRAWS = [
    *({"temperature": 1}, {"temperature": 0.7, "k": 5}, {"temperature": 1.3, "p": 0.8}),
    {"temperature": 0.9, "k": 9, "p": 0.6},
]


CFG = ModelConfig(vocab_size=500, d_model=64, n_heads=4)
LAW = TimeModel(4e-4, 3e-4, 3e-5, 6e-6, 1e-9, 2e-7, (1e-7, 3e-7))
BLOCKS, HEAD = latency.work(CFG)
ROOF = LAW.without_overhead(BLOCKS, 1e11, HEAD)
LAWS = [  # width, overhead and bandwidth in times of the run's own
    *((LAW, 64, 1, 1), (LAW, 256, 1, 1), (LAW, 32, 0.01, 3), (LAW, 1024, 2, 0.1)),
    (replace(LAW, kappa=-1e-8), 64, 0.5, 10),
    (replace(LAW, head=1e-4), 128, 1, 1),
    (replace(LAW, kappa_interval=(-1e-7, 5e-7)), 64, 1, 1),
]
LENGTHS = [1, 2, 50, 700]


def asked_of(law, width, overhead, faster):
    """What a slider asks: timemodel.json as a run leaves it, and what is moved to where."""
    saved = latency.summary(law, ROOF, pd.DataFrame(), CFG, 8)
    bandwidth = faster * saved["bandwidth_bytes_per_second"]
    how = {"width": width, "overhead": overhead, "bandwidth": bandwidth}
    return {"law": saved, "how": how, "prompt": 8, "lengths": LENGTHS}


def model_for(config, scheme):
    """A model of weights so large that it does not repeat one token for ever."""
    torch.manual_seed(1)
    model = Transformer(CONFIGS[config]).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.4 if p.ndim > 1 else 0.2))
    return quantize(model, FORMATS[scheme]) if FORMATS[scheme] else model


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Everything asked of the script at once; the models, what was asked and its answers."""
    if not shutil.which("node"):
        pytest.skip("node is not installed: the page's script is not run")
    folder, questions = tmp_path_factory.mktemp("talk"), {"wasm": str(wasm.WASM), "models": []}
    models = [model_for(*case) for case in CASES]
    for i, model in enumerate(models):
        header, image = to_web(model)
        (folder / f"{i}.bin").write_bytes(image)
        ids = ids_of(model.cfg, 1, 5)[0].tolist()
        asked = {"file": f"{i}.bin", "header": header, "ids": ids, "steps": STEPS}
        questions["models"].append(asked)
    tokenizers = [make() for make in TOKENIZERS.values()]
    questions["tokenizers"] = [{"json": t.to_str(), "texts": TEXTS} for t in tokenizers]
    questions["logits"] = torch.randn(40, generator=torch.Generator().manual_seed(3)).tolist()
    questions["draws"] = DRAWS
    questions["laws"] = [asked_of(*case) for case in LAWS]
    (folder / "questions.json").write_text(json.dumps(questions), "utf-8")
    command = ["node", str(Path(__file__).with_name("talk.mjs")), str(SCRIPTS), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return models, tokenizers, questions, json.loads(done.stdout)


@pytest.mark.skipif(
    not any(map(shutil.which, hosts.BROWSERS)), reason="chromium is not installed: apt install it"
)
def test_a_browser_writes_what_pytorch_writes_in_every_family_and_format(tmp_path):
    page = hosts.Browser()
    try:
        scripts, module = page.place(SCRIPTS), page.place(wasm.WASM)
        for i, case in enumerate(CASES):
            model, path = model_for(*case), tmp_path / f"{i}.bin"
            header, image = to_web(model)
            path.write_bytes(image)
            start = {"name": str(i), "kind": "engine", "scripts": scripts, "wasm": module}
            page.ask(start=start | {"header": header, "image": page.place(path)})
            ids = ids_of(model.cfg, 1, 5)
            run = {"name": str(i), "prompt": ids[0].tolist(), "most": STEPS, "keep": False}
            tokens = page.ask(run=run)["tokens"]
            assert tokens == generate(model, ids, STEPS)[0, 5:].tolist(), case
    finally:
        page.close()


def test_the_module_is_of_this_source():
    """After a change of engine.c: make wasm."""
    record, data = json.loads(wasm.RECORD.read_text("utf-8")), wasm.WASM.read_bytes()
    assert record["source_sha256"] == wasm.source_hash()
    assert record["wasm_sha256"] == hashlib.sha256(data).hexdigest()
    assert len(data) <= wasm.MOST_BYTES and record["compiler"] == f"ziglang {wasm.ZIG}"


@pytest.mark.skipif(not wasm.has_zig(), reason=f"ziglang {wasm.ZIG} is not installed")
def test_the_module_is_made_again_byte_for_byte():
    assert wasm.module_bytes() == wasm.WASM.read_bytes()


def test_without_its_compiler_the_module_is_not_made(monkeypatch):
    monkeypatch.setattr(wasm, "ZIG", "0.0.0")
    with pytest.raises(wasm.BuildError, match=r"^ziglang 0.0.0 is not installed: pip install"):
        wasm.module_bytes()


def test_making_it_leaves_the_record_of_its_source(monkeypatch, tmp_path):
    monkeypatch.setattr(wasm, "module_bytes", lambda: b"made")
    for name in ("WASM", "RECORD"):
        monkeypatch.setattr(wasm, name, tmp_path / name)
    assert wasm.write().read_bytes() == b"made"
    record = json.loads((tmp_path / "RECORD").read_text("utf-8"))
    assert record["wasm_sha256"] == hashlib.sha256(b"made").hexdigest()
    assert record["source_sha256"] == wasm.source_hash()


def test_structures_have_the_sizes_of_32_bit_pointers():
    """As clang lays them out for wasm32."""
    kinds = (structs.Matrix, structs.Norm, structs.Block, structs.Model, structs.Cache)
    assert [sizeof(wasm32(kind)) for kind in kinds] == [88, 12, 664, 248, 96]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_step_reads_all_but_the_tables_it_takes_a_row_of(config):
    model = model_for(config, "fp32")
    header, image = to_web(model)
    cfg, row = model.cfg, 4 * 8 * 2  # a panel has eight rows, and there are pairs of them
    weights = sum(p.numel() for p in model.parameters())
    weights -= 0 if cfg.tied else cfg.vocab_size * cfg.d_model
    filled = sum(row * p.shape[-1] for p in model.parameters())
    assert 4 * weights <= header["read"] <= 4 * weights + filled
    assert header["read"] < len(image) < header["size"]


def test_the_module_imports_nothing(asked):
    assert asked[-1]["imports"] == []


@pytest.mark.parametrize("case", CASES, ids=", ".join)
def test_tokens_are_those_of_pytorch(asked, case):
    models, _, questions, answers = asked
    model, told = models[CASES.index(case)], answers["models"][CASES.index(case)]
    prompt = torch.tensor([questions["models"][CASES.index(case)]["ids"]])
    want = generate(model, prompt, STEPS)
    assert told["tokens"] == want[0, 5:].tolist() == told["again"]
    assert len(set(told["tokens"])) > 3
    with torch.no_grad():
        logits = model(want[:, :-1])[0, -1]
    assert apart(torch.tensor(told["last"]), logits) < 2e-5


@pytest.mark.parametrize("case", CASES, ids=", ".join)
def test_the_last_token_looks_where_it_does_in_pytorch(asked, case):
    """Every head of every block; and the text stays held."""
    models, _, questions, answers = asked
    at = CASES.index(case)
    model, told = models[at], answers["models"][at]
    ids = torch.tensor([questions["models"][at]["ids"] + told["tokens"]])
    want = probabilities(model, ids)
    assert len(told["looks"]) == len(want) == model.cfg.n_layers * model.cfg.n_heads
    for row, (head, p) in zip(told["looks"], want.items(), strict=True):
        assert torch.allclose(torch.tensor(row), p[0, -1], atol=1e-4), head
        assert abs(sum(row) - 1) < 1e-5 and max(row) > 1.5 / len(row)
    assert told["apart"] < 1e-4


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokenizers_give_the_same_ids_and_texts(asked, kind):
    _, tokenizers, _, answers = asked
    at = list(TOKENIZERS).index(kind)
    for text, told in zip(TEXTS, answers["tokenizers"][at], strict=True):
        ids = encode(tokenizers[at], text)
        assert told["ids"] == ids.tolist(), text
        assert told["text"] == decode(tokenizers[at], ids), text
        assert len(told["pieces"]) == len(ids) and "".join(told["pieces"]) == told["text"]


def test_prompts_are_completed_from_the_vocabulary(asked):
    told = dict(zip(TOKENIZERS, asked[-1]["tokenizers"], strict=True))
    assert told["word"][-1]["completed"] == ["mats"]
    assert all(end.startswith("mat") for end in told["bpe"][-1]["completed"])
    assert told["word"][3]["completed"] == []


def test_what_may_be_drawn_is_what_the_library_draws_from(asked):
    *_, questions, answers = asked
    logits = torch.tensor(questions["logits"])
    for how, told in zip(DRAWS, answers["likeliest"], strict=True):
        sampling = Sampling(how["temperature"], how.get("k"), how.get("p"))
        want = distribution(logits[None], sampling)[0]
        mass = sum(share for _, share in told)
        got = torch.zeros(len(want))
        for id, share in told:
            got[id] = share / mass
        assert torch.allclose(got, want, atol=1e-6)
        assert [share for _, share in told] == sorted((s for _, s in told), reverse=True)


def test_a_seed_repeats_and_the_draws_follow_their_probabilities(asked):
    answers = asked[-1]
    assert answers["greedy"] == max(range(40), key=lambda i: asked[2]["logits"][i])
    for told, (one, again, other) in zip(answers["likeliest"], answers["drawn"], strict=True):
        assert one == again != other
        shares = {id: share / sum(s for _, s in told) for id, share in told}
        assert set(one) <= set(shares)
        for id, share in shares.items():
            assert abs(one.count(id) / len(one) - share) < 5 * (share / len(one)) ** 0.5 + 0.01


def test_the_arrow_keys_find_the_word_above_and_below(asked):
    told = asked[-1]["marked"]
    assert told["told"] == [["kind", "a: b"], ["loss, nats", "1.20"]]
    assert [told[way] for way in ("up", "top", "down", "last")] == [1, 1, 4, 5]


def test_the_law_that_sliders_move_is_the_time_model(asked):
    """At the run's own constants exactly; elsewhere with what another width reads and computes."""
    for (law, width, overhead, faster), told in zip(LAWS, asked[-1]["laws"], strict=True):
        other = replace(CFG, d_model=width)
        wider, read = width / CFG.d_model, weights_read(other) / weights_read(CFG)
        blocks, head = latency.work(other)
        assert blocks + head == flops(other, 1) and HEAD == 2 * 64 * 500
        o, cached_o = overhead * law.overhead, overhead * law.cached_overhead
        kappa, a = law.kappa * wider / faster, law.attention * wider
        w = law.weights * read / faster
        c, h = law.compute * blocks / BLOCKS, law.head * head / HEAD
        moved = TimeModel(o, cached_o, w, c, a, kappa, (0, 0), h)
        roof = TimeModel(0, 0, w, blocks / 1e11, 0, 0, (0, 0), head / 1e11)
        for n, (speedup, limit, shares, said) in zip(LENGTHS, told, strict=True):
            assert speedup == pytest.approx(moved.speedup(8, n), rel=1e-9)
            assert limit == pytest.approx(roof.speedup(8, n), rel=1e-9)
            assert shares == pytest.approx(1)
            read = "reading the cache" in said
            assert ("not resolvable" in said) == (read and law.kappa_interval[0] <= 0)
    seen, hidden = (asked[-1]["laws"][i][-1][-1] for i in (0, -1))
    assert seen.endswith(" %") and hidden == f"{seen} (not resolvable)"
    own = [row[0] for row in asked[-1]["laws"][0]]
    assert own == pytest.approx([LAW.speedup(8, n) for n in LENGTHS], rel=1e-12)


def test_rows_are_counted_and_chosen_by_verdict(asked):
    told = asked[-1]["filter"]
    assert told["counted"] == [["b", 3], ["a", 2]]
    assert told["shown"] == [[True] * 3, [True, False, False], [True, True, False]]
