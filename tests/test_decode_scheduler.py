"""Continuous batching: every request gets its own single run's tokens, whatever joins, leaves or is
preempted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.bench import Clock, simulate
from minitransformer.cache import BlockPool, BlockTable, PoolExhausted
from minitransformer.decode import Request, Sampling, Scheduler, choose, generate
from minitransformer.model import ModelConfig, Transformer

CFG = ModelConfig(vocab_size=50, d_model=32, n_layers=1, n_heads=4, n_kv_heads=2, context=40)


def make_model():
    torch.manual_seed(3)
    model = Transformer(CFG).double().eval()
    with torch.no_grad():
        model.blocks[0].attention.q.weight *= 4
        model.blocks[0].attention.k.weight *= 4
    return model


MODEL = make_model()
SAMPLING = Sampling(temperature=1.2, top_k=30, repetition_penalty=1.3)


def prompt(length, seed):
    return torch.randint(0, 50, (length,), generator=torch.Generator().manual_seed(seed))


def alone(request, seed=None):
    """The same request in a run of its own."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return generate(
        MODEL,
        request.prompt[None],
        request.max_new_tokens,
        sampling=request.sampling,
        generator=generator,
        stop=request.stop,
    )[0]


sizes = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(
    sizes=sizes,
    blocks=st.integers(6, 12),
    max_batch=st.integers(1, 5),
    share=st.booleans(),
    continuous=st.booleans(),
)
def test_all_are_served_in_order_with_their_own_tokens_by_a_pool_too_small_for_all(
    sizes, blocks, max_batch, share, continuous
):
    pool = BlockPool(CFG, blocks, 4)  # six blocks hold the longest request, 23 tokens
    scheduler = Scheduler(MODEL, pool, max_batch, share=share, continuous=continuous)
    requests = [  # every other one sampled; some prompts begin alike
        Request(
            prompt(length, seed=i % 3),
            new,
            sampling=SAMPLING,
            generator=torch.Generator().manual_seed(i),
        )
        if i % 2
        else Request(prompt(length, seed=i % 3), new)
        for i, (length, new) in enumerate(sizes)
    ]
    served = [scheduler.submit(request) for request in requests]
    finished = []
    while scheduler.busy:
        new, before = set(scheduler.waiting), [one.preemptions for one in served]
        finished += scheduler.step()
        assert not [
            one for one, n in zip(served, before, strict=True) if one in new and one.preemptions > n
        ]
        order = [served.index(one) for one in [*scheduler.running, *scheduler.waiting]]
        assert (
            order == sorted(order) and len(scheduler.running) <= max_batch
        )  # first come, first served
        held = [block for one in scheduler.running for block in one.table.blocks]
        assert pool.references == [held.count(block) for block in range(blocks)]
    assert sorted(map(served.index, finished)) == list(range(len(served))) and pool.used == 0
    for i, (request, one) in enumerate(zip(requests, served, strict=True)):
        assert torch.equal(one.ids, alone(request, i if i % 2 else None))
        assert len(one.times) == len(one.tokens) and one.times == sorted(one.times)


def test_a_dry_pool_preempts_the_latest_and_the_earliest_goes_on():
    scheduler = Scheduler(MODEL, BlockPool(CFG, 6, 4), 3, share=False)
    served = [scheduler.submit(Request(prompt(4, seed), 16)) for seed in range(3)]
    assert scheduler.run() == served
    assert served[0].preemptions == 0 and served[2].preemptions > 0
    for one in served:
        assert torch.equal(one.ids, alone(one.request))


def test_requests_join_while_others_run_and_leave_at_their_stop_token():
    scheduler = Scheduler(MODEL, BlockPool(CFG, 20, 4), 2)
    first = scheduler.submit(Request(prompt(5, 0), 12))
    scheduler.step()
    free = alone(Request(prompt(3, 1), 20))
    stopping = scheduler.submit(Request(prompt(3, 1), 20, stop=(int(free[6]),)))
    third = scheduler.submit(Request(prompt(2, 2), 1))
    scheduler.step()
    assert (
        len(first.tokens) == 3
        and scheduler.running == [first, stopping]
        and list(scheduler.waiting) == [third]
    )
    assert scheduler.run() == [stopping, third, first]
    assert stopping.ids[-1] == free[6] and len(stopping.tokens) <= 4
    assert torch.equal(stopping.ids, free[: len(stopping.ids)]) and torch.equal(
        first.ids, alone(first.request)
    )


def test_a_common_prefix_is_computed_once():
    pool, system, fed = BlockPool(CFG, 20, 4), prompt(9, 0), []
    requests = [Request(torch.cat((system, prompt(3, seed))), 2) for seed in (1, 2)]
    for share, forwards, shared in ((True, [12, 4, 2], [0, 8]), (False, [12, 12, 2], [0, 0])):
        scheduler = Scheduler(MODEL, pool, 2, share=share, on_forward=fed.append)
        served = [scheduler.submit(request) for request in requests]
        scheduler.run()
        assert fed == forwards and [one.shared for one in served] == shared
        for one in served:
            assert torch.equal(one.ids, alone(one.request))
        pool, fed = BlockPool(CFG, 20, 4), []


def test_nobody_is_admitted_to_be_preempted_in_the_same_step():
    scheduler = Scheduler(MODEL, BlockPool(CFG, 4, 4))
    first = scheduler.submit(Request(prompt(7, 0), 3))
    scheduler.step()  # it fills two blocks, and its next token takes the third
    second = scheduler.submit(Request(prompt(4, 1), 4))
    assert scheduler.step() == [first]
    assert (
        second.tokens == [] and second.preemptions == 0
    )  # the fourth would hold its prompt, but not its next token
    assert scheduler.run() == [second]


def test_a_preempted_request_revives_its_own_blocks():
    scheduler = Scheduler(MODEL, BlockPool(CFG, 8, 4), 3)
    served = [scheduler.submit(Request(prompt(4, seed), 16)) for seed in range(3)]
    scheduler.run()
    assert served[1].preemptions == 1 and served[1].shared > 4  # more than its prompt's one block
    for one in served:
        assert torch.equal(one.ids, alone(one.request))


def test_simulated_times_follow_the_service_times_exactly():
    requests = [
        Request(prompt(3, 0), 3, arrival=10.0),
        Request(prompt(2, 1), 2, arrival=1.0),
        Request(prompt(2, 2), 1, arrival=11.0),
    ]
    early, first, second = simulate(
        MODEL, BlockPool(CFG, 9, 4), requests, 2, service=lambda tokens: 1.0 + tokens / 8
    )
    assert early.request is requests[1] and early.times == [2.25, 3.375]
    assert first.times == [
        11.375,
        12.5,
        12.5 + 1.25 + 1.125,
    ]  # the second, which came at 11, is computed between
    assert second.times == [13.75] and second.first_token_s == 2.75
    assert (
        first.token_s == 1.75 and first.first_token_s == 1.375 and second.token_s != second.token_s
    )


def test_leaving_early_and_joining_at_once_beats_waiting_for_the_batch():
    requests = [
        Request(prompt(2, seed), 3 + 9 * (seed % 2), arrival=seed / 2) for seed in range(10)
    ]
    ends, waits = {}, {}
    for continuous in (True, False):
        served = simulate(
            MODEL,
            BlockPool(CFG, 40, 4),
            requests,
            4,
            service=lambda tokens: 1.0,
            continuous=continuous,
        )
        ends[continuous] = max(one.times[-1] for one in served)
        waits[continuous] = sum(one.first_token_s for one in served)
    assert ends[True] < ends[False] and waits[True] < waits[False]


def test_the_clock_measures_real_forwards_and_skips_idle_time():
    clock = Clock()
    clock.wait(3600.0)
    before = clock()
    clock.forward(5)
    assert 3600.0 <= before <= clock() < 3660.0
    clock.wait(1.0)
    assert clock() >= before
    (served,) = simulate(MODEL, BlockPool(CFG, 9, 4), [Request(prompt(3, 0), 3, arrival=3600.0)])
    assert 3600.0 < served.times[0] <= served.times[-1] < 3660.0


def test_what_can_never_be_served_is_named_and_nothing_is_queued():
    scheduler = Scheduler(MODEL, BlockPool(CFG, 3, 4))
    with pytest.raises(ValueError, match="a prompt of 3 and 39 new tokens pass context 40"):
        scheduler.submit(Request(prompt(3, 0), 39))
    with pytest.raises(
        ValueError, match="13 tokens need 4 blocks, the pool has 3: make a larger pool"
    ):
        scheduler.submit(Request(prompt(3, 0), 11))
    with pytest.raises(ValueError, match=r"the prompt has shape \(1, 0\): give at least one token"):
        scheduler.submit(Request(prompt(0, 0), 5))
    with pytest.raises(ValueError, match="max_new_tokens 0 is not positive"):
        scheduler.submit(Request(prompt(3, 0), 0))
    with pytest.raises(ValueError, match="max_batch 0 is not positive"):
        Scheduler(MODEL, scheduler.pool, 0)
    assert not scheduler.busy and scheduler.run() == []


def test_blocks_held_by_others_are_named_and_the_request_waits_for_them():
    pool = BlockPool(CFG, 2, 4)
    scheduler, other = Scheduler(MODEL, pool), [BlockTable(pool), BlockTable(pool)]
    for table in other:
        table.reserve(1)
    served = scheduler.submit(Request(prompt(3, 0), 5))
    with pytest.raises(PoolExhausted, match="2 blocks are held outside this scheduler"):
        scheduler.step()
    other.pop().truncate(0)
    scheduler.step()
    with pytest.raises(PoolExhausted, match="all 2 blocks of the pool are in use"):
        scheduler.run()
    other.pop().truncate(0)
    scheduler.run()
    assert torch.equal(served.ids, alone(served.request))


RULES = [
    Sampling(),
    Sampling(),
    SAMPLING,
    Sampling(0.0),
    Sampling(top_p=0.8),
    Sampling(),
    Sampling(),
]


def drawing(generators):
    """A scheduler, a request of each of `RULES`, and logits to draw from: a row each."""
    scheduler = Scheduler(MODEL, BlockPool(CFG, 20, 4), len(RULES))
    served = [
        scheduler.submit(Request(prompt(3 + i, i), 5, sampling=rule, generator=generator))
        for i, (rule, generator) in enumerate(zip(RULES, generators, strict=True))
    ]
    return (
        scheduler,
        served,
        torch.randn(len(RULES), 50, generator=torch.Generator().manual_seed(9)),
    )


@pytest.mark.parametrize("shared", [True, False])
def test_those_that_draw_alike_draw_what_each_would_draw_in_turn(shared, monkeypatch):
    """The same after an interrupt that lost what was drawn."""

    def generators():
        one = torch.Generator().manual_seed(4)
        return [one if shared else torch.Generator().manual_seed(i) for i in range(len(RULES))]

    def lost(*args):
        choose(*args)
        raise KeyboardInterrupt

    scheduler, served, logits = drawing(generators())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("minitransformer.decode.scheduler.choose", lost)
        scheduler._choose(logits, served)
    assert not any(each.tokens for each in served)
    scheduler._choose(logits, served)
    rows = zip(logits, served, generators(), strict=True)
    wanted = [
        choose(row[None], each.job.sampling, each.job.ids, generator).item()
        for row, each, generator in rows
    ]
    assert [each.tokens for each in served] == [[token] for token in wanted]


def test_a_row_without_a_choice_is_named():
    scheduler, served, logits = drawing([None] * len(RULES))
    logits[1] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity after 4 tokens, in row 1: check"):
        scheduler._choose(logits, served)
