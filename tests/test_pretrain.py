"""The command that trains from a folder of tokens: what it writes, and what it refuses."""

import pytest
import torch

from minitransformer import load, pretrain
from minitransformer.bench import training_bytes, training_flops
from minitransformer.corpus import Batches, language_corpus
from minitransformer.model import ModelConfig, Transformer
from minitransformer.train import initialize, plan, train

SETTINGS = {"steps": 6, "batch_size": 2, "window": 16, "short_steps": 0, "d_model": 32}
SALT = "1a2b3c4d5e6f7890"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    made = language_corpus(1, SALT, n_train=3000, n_valid=500, n_test=500)
    made.save(folder := tmp_path_factory.mktemp("run"))
    return folder


def pretrained(text, out, *more):
    given = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    return pretrain.main([str(text), "--out", str(out), *given, *more])


def by_hand(ids, vocab_size):
    recipe = plan("good", **{n: v for n, v in SETTINGS.items() if n != "d_model"})
    model = initialize(Transformer(ModelConfig(vocab_size, d_model=32)), "scaled", 0)
    train(model, Batches(ids, seed=0, **recipe.batches).batch, recipe)
    return model.state_dict()


def same(model, state):
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_command_trains_what_the_library_does_and_goes_on_from_its_checkpoint(
    corpus, tmp_path, capsys
):
    assert pretrained(corpus, tmp_path / "model") == 0
    first, *steps, last = capsys.readouterr().out.splitlines()
    assert len(steps) == 6 and last.endswith("model: 6 steps on 1 processes")
    assert steps[0].startswith("step 1 of 6: loss ")
    model, tokenizer = load(tmp_path / "model")
    held = sum(training_bytes(model.cfg, 2, 16).values()) / 2**20
    work = training_flops(model.cfg, 2, 16) / 1e9  # told before the first step
    said = f"an update of 2 rows holds {held:,.1f} MiB, the model whole: {work:,.3g} GFLOP"
    rows = torch.load(tmp_path / "model.train.pt")["rows"]
    assert first == said and steps[0].endswith(f" tokens, {rows[0]['seconds']:.3g} s")
    ids, own = pretrain.read(corpus)
    assert tokenizer.to_str() == own.to_str()
    assert same(model.cpu(), by_hand(ids, own.get_vocab_size()))
    assert pretrained(corpus, tmp_path / "model") == 0  # finished: nothing is trained again
    assert "step" not in capsys.readouterr().out.splitlines()[1].split(":")[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "stepz=3"], "a recipe has no field 'stepz' (did you mean 'steps'?)"),
        (["--set", "steps"], "--set steps is not NAME=VALUE: write --set steps=100"),
        (["--set", "ffn=gelu2"], "ffn 'gelu2' is unknown"),
        (["--set", "n_heads=5"], "n_heads 5"),
        (["--seed", str(2**64)], "seed 18446744073709551616 is not supported: give -922337203685"),
    ],
)
def test_what_cannot_be_trained_is_one_line(corpus, tmp_path, capsys, more, message):
    assert pretrained(corpus, tmp_path / "model", *more) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and said.startswith("error: ")
    assert not (tmp_path / "model").exists()


def test_a_place_that_no_model_can_take_is_named_before_the_training(corpus, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert pretrained(corpus, tmp_path / "mine") == 2
    told = capsys.readouterr()
    assert "holds notes.txt, which no save wrote" in told.err and "step" not in told.out


def test_an_interrupt_is_one_line(corpus, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "train", interrupted)
    assert pretrained(corpus, tmp_path / "model") == 130
    assert capsys.readouterr().err == "interrupted: what was finished is kept\n"


def test_a_folder_without_tokens_is_named(tmp_path, capsys):
    assert pretrained(tmp_path, tmp_path / "model") == 2
    assert "no corpus in" in capsys.readouterr().err


def test_memory_that_ends_is_told_once_or_ends_the_run_in_one_line(
    corpus, tmp_path, capsys, monkeypatch
):
    held, forward = [3], Transformer.forward

    def holding(self, ids, cache=None):
        if len(ids) > held[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, ids, cache)

    monkeypatch.setattr(Transformer, "forward", holding)
    assert pretrained(corpus, tmp_path / "model", "--set", "batch_size=4") == 0
    assert capsys.readouterr().out.count("step 1: the GPU's memory holds 2 rows at a time\n") == 1
    held[0] = 0
    assert pretrained(corpus, tmp_path / "other") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: step 1: the memory of cpu does not hold a row of 16 tokens: ")
    assert said.count("\n") == 1 and not (tmp_path / "other").exists()
