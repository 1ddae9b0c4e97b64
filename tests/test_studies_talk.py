"""What a model says, and what a page needs to let it speak."""

import json
from base64 import b64decode

import pytest
import torch

from minitransformer import ModelConfig, QuantScheme, Transformer, generate, load, quantize, save
from minitransformer.corpus import decode, text_corpus
from minitransformer.native.wasm import WASM
from studies import talk

WORDS = "the cat sat on the mat and the dog sat on the log "


@pytest.fixture(scope="module", params=["word", "character"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "cats.txt").write_text(WORDS * 60, "utf-8")
    data = text_corpus(folder / "cats.txt", request.param)
    data.save(folder)
    torch.manual_seed(0)
    size = data.tokenizer.get_vocab_size()
    model = Transformer(ModelConfig(size, d_model=32, context=128)).eval()
    for place, scheme in (("int8", QuantScheme(8)), ("int4", QuantScheme(4, "group", 32))):
        save(quantize(model, scheme), folder / f"model-{place}", data.tokenizer)
    return folder


def test_the_continuation_is_the_greedy_one_and_the_page_gets_the_same(folder):
    table, live = talk.talk(folder)
    prompt = torch.tensor([live["prompt"]])
    assert json.loads(json.dumps(live)) == live and b64decode(live["engine"]) == WASM.read_bytes()
    for name, row in zip(("int8", "int4"), table.itertuples(), strict=True):
        model, tokenizer = load(folder / f"model-{name}")
        ids = generate(model, prompt, 64)[0, prompt.shape[1] :]
        assert row.weights == name and live["models"][name]["greedy"] == ids.tolist()
        assert row.continuation == decode(tokenizer, ids.numpy())
    assert live["text"] == decode(tokenizer, prompt[0].numpy())


def test_a_short_context_holds_fewer_tokens(folder, monkeypatch):
    monkeypatch.setattr(talk, "TOKENS", 10_000)
    live = talk.talk(folder)[1]
    assert len(live["prompt"]) + len(live["models"]["int8"]["greedy"]) == live["context"] == 128


def test_a_model_that_is_too_large_for_a_page_stays_out_of_it(folder, monkeypatch):
    full = talk.talk(folder)[1]["models"]
    monkeypatch.setattr(talk, "MOST", len(full["int8"]["image"]))
    table, live = talk.talk(folder)
    assert list(live["models"]) == ["int8"] and list(table.weights) == ["int8", "int4"]
