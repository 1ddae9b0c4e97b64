"""Batches of prompts of unequal length: each row is what it would be alone, padded or paged."""

from dataclasses import replace

import pytest
import torch

from minitransformer.decode import Sampling, generate, generate_batch
from minitransformer.model import ModelConfig, Transformer

CFG = ModelConfig(vocab_size=50, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, context=40)
PROMPTS = [torch.tensor(ids) for ids in ([4, 9, 11], [7], [7, 7, 30, 2, 5, 41, 8], [4, 9, 11, 3])]
KINDS = ["static", "dynamic", "paged"]


@pytest.fixture(scope="module", params=["rope", "sinusoidal", "smeared keys"])
def model(request):
    torch.manual_seed(3)
    smeared = request.param == "smeared keys"
    changes = {"smeared_keys": True} if smeared else {"position": request.param}
    model = Transformer(replace(CFG, **changes)).double().eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.q.weight *= 4
            block.attention.k.weight *= 4
    return model


@pytest.mark.parametrize("cache", KINDS)
def test_greedy_rows_are_those_of_single_runs(model, cache):
    for prompt, row in zip(PROMPTS, generate_batch(model, PROMPTS, 30, cache=cache), strict=True):
        assert torch.equal(row, generate(model, prompt[None], 30, cache=None)[0])


@pytest.mark.parametrize("cache", KINDS)
def test_sampled_rows_with_a_generator_each_are_those_of_single_runs(model, cache):
    sampling = Sampling(temperature=1.3, top_k=20, top_p=0.95, repetition_penalty=1.5)
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    rows = generate_batch(model, PROMPTS, 20, cache=cache, sampling=sampling, generator=generators)
    for seed, (prompt, row) in enumerate(zip(PROMPTS, rows, strict=True)):
        alone = generate(
            model,
            prompt[None],
            20,
            sampling=sampling,
            generator=torch.Generator().manual_seed(seed),
        )
        assert torch.equal(row, alone[0])


@pytest.mark.parametrize("cache", KINDS)
def test_a_stop_token_ends_its_own_row_only(model, cache):
    free = generate_batch(model, PROMPTS, 15, cache=cache)
    stop = (int(free[0][6]), int(free[2][15]))
    rows = generate_batch(model, PROMPTS, 15, cache=cache, stop=stop)
    assert (
        len(rows[0]) <= 7
        and len({len(row) - len(prompt) for row, prompt in zip(rows, PROMPTS, strict=True)}) > 1
    )
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert torch.equal(row, generate(model, prompt[None], 15, stop=stop)[0])
        assert not {*stop} & {*row[len(prompt) : -1].tolist()}


@pytest.mark.parametrize("cache", KINDS)
def test_bad_batches_are_named(model, cache):
    with pytest.raises(ValueError, match="0 prompts with generators None: give prompts"):
        generate_batch(model, [], 5, cache=cache)
    with pytest.raises(ValueError, match="4 prompts with generators .* one generator for each"):
        generate_batch(model, PROMPTS, 5, cache=cache, generator=[torch.Generator()])
    with pytest.raises(ValueError, match=r"the prompt has shape \(1, 0\): give at least one token"):
        generate_batch(model, [PROMPTS[0], PROMPTS[0][:0]], 5, cache=cache)
    with pytest.raises(ValueError, match="max_new_tokens 0 is not positive"):
        generate_batch(model, PROMPTS, 0, cache=cache)
    with pytest.raises(ValueError, match="a prompt of 7 and 35 new tokens pass context 40"):
        generate_batch(model, PROMPTS, 35, cache=cache)
