"""The paged cache: exact reference counts, copy-on-write, shared prefixes, and logits bitwise those
of contiguous memory."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.bench import kv_bytes
from minitransformer.cache import (
    KINDS,
    BlockPool,
    BlockTable,
    PagedCache,
    PoolExhausted,
    make_cache,
)
from minitransformer.decode import certify, certify_beam, generate, generate_batch, oracle_logits
from minitransformer.model import ModelConfig, Transformer

CFG = ModelConfig(vocab_size=50, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, context=40)


def sharp(cfg=CFG, dtype=torch.float64, seed=1):
    """A random model whose attention is peaked, so that a wrong key or value shows."""
    torch.manual_seed(seed)
    model = Transformer(cfg).to(dtype).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.q.weight *= 4
            block.attention.k.weight *= 4
    return model


def tokens(batch, T, seed=2):
    return torch.randint(0, 50, (batch, T), generator=torch.Generator().manual_seed(seed))


def in_use(pool, n):
    """Tables that hold a block each."""
    tables = [BlockTable(pool) for _ in range(n)]
    for table in tables:
        table.reserve(1)
    return tables


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


configs = st.builds(
    ModelConfig,
    vocab_size=st.just(50),
    d_model=st.just(32),
    n_layers=st.integers(1, 2),
    n_heads=st.just(4),
    n_kv_heads=st.sampled_from([None, 1, 2]),
    context=st.just(40),
    position=st.sampled_from(["rope", "sinusoidal", "none"]),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    ffn=st.sampled_from(["relu", "swiglu"]),
    bias=st.booleans(),
    tied=st.booleans(),
    qk_norm=st.booleans(),
    smeared_keys=st.booleans(),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block_size", [1, 5, 16])
def test_logits_are_bitwise_those_of_the_static_cache(dtype, block_size):
    model, ids = sharp(dtype=dtype), tokens(3, 30)
    static, paged = make_cache(CFG, "static", 3), make_cache(CFG, "paged", 3, block_size=block_size)
    for a, b in [
        (0, 9),
        (9, 10),
        (10, 11),
        (11, 17),
        (17, 18),
        (18, 30),
    ]:  # prefill, steps, and chunks after a past
        assert torch.equal(model(ids[:, a:b], paged), model(ids[:, a:b], static))


@settings(max_examples=15, deadline=None)
@given(
    cfg=configs,
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    block_size=st.integers(1, 9),
    T=st.integers(1, 5),
)
def test_rows_of_any_length_get_the_logits_of_one_forward_each(cfg, lengths, block_size, T):
    model, pool = sharp(cfg), BlockPool(cfg, 100, block_size)
    rows = [tokens(1, n + 2 * T, seed=n) for n in lengths]
    tables = [BlockTable(pool) for _ in rows]
    for row, table, n in zip(rows, tables, lengths, strict=True):
        model(row[:, :n], PagedCache.over([table]))
    cache, out = PagedCache.over(tables), []
    for step in (0, T):
        new = torch.cat(
            [row[:, n + step : n + step + T] for row, n in zip(rows, lengths, strict=True)]
        )
        out.append(model(new, cache))
    out = torch.cat(out, dim=1)
    for b, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        torch.testing.assert_close(out[b], model(row)[0, n:], atol=1e-10, rtol=0)
        assert tables[b].length == n + 2 * T
        assert 0 <= len(tables[b].blocks) * block_size - tables[b].length < block_size  # waste


QUANTIZED = [kind for kind in KINDS if kind.startswith("paged-")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pages_of_int8_are_bitwise_the_contiguous_int8_cache(dtype):
    model, ids = sharp(dtype=dtype), tokens(3, 30)
    static, paged = make_cache(CFG, "int8", 3), make_cache(CFG, "paged-int8", 3, block_size=5)
    for a, b in [(0, 9), (9, 10), (10, 17), (17, 30)]:
        assert torch.equal(model(ids[:, a:b], paged), model(ids[:, a:b], static))


@settings(max_examples=20, deadline=None)
@given(
    cfg=configs,
    kind=st.sampled_from(QUANTIZED),
    block_size=st.integers(1, 9),
    cuts=st.sets(st.integers(1, 29), max_size=9),
)
def test_quantized_pages_give_the_logits_of_fake_quantized_keys_and_values(
    cfg, kind, block_size, cuts
):
    model, ids, cache = sharp(cfg), tokens(2, 30), make_cache(cfg, kind, 2, block_size=block_size)
    edges = [0, *sorted(cuts), 30]
    got = torch.cat(
        [model(ids[:, a:b], cache) for a, b in zip(edges, edges[1:], strict=False)], dim=1
    )
    torch.testing.assert_close(
        got, oracle_logits(model, ids, kind, block_size=block_size), atol=1e-10, rtol=0
    )
    assert cache.nbytes == kv_bytes(cfg, 30, batch=2, kind=kind, block_size=block_size)
    cache.truncate(20)
    torch.testing.assert_close(model(ids[:, 20:], cache), got[:, 20:], atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_pages_are_shared_copied_and_searched_like_others(kind):
    model, ids, cache = sharp(), tokens(1, 10), make_cache(CFG, kind, block_size=4)
    model(ids, cache)
    one = cache.nbytes
    cache.select(torch.tensor([0, 0]))
    assert cache.nbytes == one
    ends = tokens(2, 5, seed=7)
    oracle = oracle_logits(model, torch.cat((ids.expand(2, -1), ends), dim=1), kind)[:, 10:]
    torch.testing.assert_close(model(ends, cache), oracle, atol=1e-10, rtol=0)
    found = certify_beam(
        model, [ids], 12, cache=kind, oracle=lambda ids: oracle_logits(model, ids, kind)
    )
    assert found.verdict == "certified" and found.steps == 12
    prompts = [tokens(1, n, seed=n)[0] for n in (3, 9, 5)]
    for prompt, row in zip(prompts, generate_batch(model, prompts, 12, cache=kind), strict=True):
        assert torch.equal(row, generate(model, prompt[None], 12, cache=kind)[0])


def test_a_pool_of_other_bits_is_named():
    model, pool = sharp(), BlockPool(CFG, 4, 4, bits=8)
    model(tokens(1, 5), make_cache(CFG, "paged", pool=pool))
    assert (
        pool.store.dtype == torch.uint8 and pool.dtype == torch.float64
    )  # plain "paged" takes the pool as it is
    with pytest.raises(
        ValueError,
        match=(
            r"a pool of .* 4, 8, torch.float64\) does not fit a cache of .* 4, 4, "
            r"torch.float64\)"
        ),
    ):
        make_cache(CFG, "paged-int4", pool=pool)
    with pytest.raises(ValueError, match="a pool of 5 bits is unknown: choose 8, 4 or None"):
        BlockPool(CFG, 4, bits=5)


@pytest.mark.parametrize("kind", ["paged", *QUANTIZED])
@pytest.mark.parametrize("taken", [[], [0], [1], [0, 2]])
def test_a_row_in_one_piece_is_read_in_place_and_one_in_many_is_gathered_to_the_same(kind, taken):
    model, ids, pool = sharp(), tokens(1, 30), BlockPool(CFG, 12, 4, bits=KINDS[kind].bits)
    for table in [t for t in in_use(pool, 4) if t.blocks[0] not in taken]:
        table.truncate(0)  # the last first: what is taken next is no ascending row
    cache, plain = make_cache(CFG, kind, pool=pool), make_cache(CFG, kind, block_size=4)
    for a, b in [(0, 9), (9, 10), (10, 17), (17, 30)]:
        assert torch.equal(model(ids[:, a:b], cache), model(ids[:, a:b], plain))
    (k, _), inside = (
        plain[0].update(torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 1, 8)),
        plain.pool.store.untyped_storage(),
    )
    assert (k.untyped_storage().data_ptr() == inside.data_ptr()) == (kind == "paged")
    assert cache.tables[0].blocks != sorted(cache.tables[0].blocks) and plain.tables[
        0
    ].blocks == list(range(8))


def test_greedy_decoding_is_certified():
    certificate = certify(sharp(), tokens(1, 5), 30, "paged")
    assert certificate.passed and not certificate.near_ties and certificate.error < 1e-10


def test_a_layer_may_be_updated_without_being_asked_for_positions():
    cache, new = make_cache(CFG, "paged", 1, block_size=2), torch.randn(1, 2, 5, 8)
    for T in (2, 1, 1, 1):
        k, v = cache[1].update(
            new[:, :, cache.pos : cache.pos + T], -new[:, :, cache.pos : cache.pos + T]
        )
        cache.advance(T)
        assert torch.equal(k, new[:, :, : cache.pos]) and torch.equal(v, -k)


def test_a_row_never_reads_the_slots_of_another():
    model, pool = sharp(), BlockPool(CFG, 8, 4)
    first, long, short = (BlockTable(pool) for _ in range(3))
    model(tokens(1, 9), PagedCache.over([first]))
    pool.store.fill_(torch.nan)  # what a released sequence may leave behind
    first.truncate(0)
    a, b = tokens(1, 7, seed=5), tokens(1, 2, seed=6)
    model(a[:, :6], PagedCache.over([long]))
    model(b[:, :1], PagedCache.over([short]))
    both = model(torch.cat((a[:, 6:], b[:, 1:])), PagedCache.over([long, short]))
    torch.testing.assert_close(both[0], model(a)[0, 6:], atol=1e-10, rtol=0)
    torch.testing.assert_close(both[1], model(b)[0, 1:], atol=1e-10, rtol=0)


def test_a_shared_block_is_copied_when_one_of_its_rows_is_written():
    model, ids = sharp(), tokens(1, 10)
    cache = make_cache(CFG, "paged", 1, block_size=4)
    model(ids, cache)
    one = cache.nbytes
    cache.select(torch.tensor([0, 0, 0]))
    assert (
        cache.batch == 3 and cache.nbytes == one and cache.pool.used == 3
    )  # 10 tokens, nothing copied yet
    ends = tokens(3, 5, seed=7)
    got = model(ends, cache)
    assert (
        cache.pool.used == 2 + 3 * 2
    )  # two full blocks shared; the part-filled one copied, and one more, for each row
    whole = model(torch.cat((ids.expand(3, -1), ends), dim=1))[:, 10:]
    torch.testing.assert_close(got, whole, atol=1e-10, rtol=0)
    cache.select(torch.tensor([2, 1]))
    last = tokens(2, 1, seed=8)
    again = model(last, cache)
    oracle = model(torch.cat((ids.expand(2, -1), ends[[2, 1]], last), dim=1))[:, -1:]
    torch.testing.assert_close(again, oracle, atol=1e-10, rtol=0)


def test_beams_may_grow_from_one_row_to_the_capacity():
    model, cache = sharp(), make_cache(CFG, "paged", 1, capacity=20, block_size=4)
    model(tokens(1, 9), cache)
    cache.select(torch.tensor([0] * 5))
    model(tokens(5, 11, seed=3), cache)
    assert cache.pos == 20 and cache.pool.blocks == 25
    shared = make_cache(CFG, "paged", 1, capacity=20, pool=BlockPool(CFG, 4, 4))
    model(tokens(1, 9), shared)
    shared.select(torch.tensor([0] * 5))
    with pytest.raises(PoolExhausted):  # a pool that others share does not grow
        model(tokens(5, 11, seed=3), shared)


def test_truncate_releases_whole_blocks_and_a_known_block_is_not_overwritten_under_its_name():
    model, pool, ids = sharp(), BlockPool(CFG, 10, 4), tokens(1, 8)
    cache = make_cache(CFG, "paged", pool=pool)
    model(ids, cache)
    pool.remember(cache.tables[0], ids[0].tolist())
    cache.truncate(5)
    assert pool.used == 2
    cache.truncate(3)
    assert pool.used == 1
    other = tokens(1, 1, seed=9)
    torch.testing.assert_close(
        model(other, cache), model(torch.cat((ids[:, :3], other), dim=1))[:, 3:], atol=1e-10, rtol=0
    )
    assert pool.match(ids[0].tolist()).blocks == []  # its fourth token is another now
    cache.truncate(0)
    assert pool.used == 0 and len(pool.free) == 10


def test_bytes_are_those_of_the_blocks_in_use():
    model, pool = sharp(), BlockPool(CFG, 10, 4)
    cache = make_cache(CFG, "paged", 2, pool=pool)
    assert cache.nbytes == pool.nbytes == 0
    model(tokens(2, 5), cache)
    block = 4 * 2 * CFG.n_layers * CFG.kv_heads * CFG.head_dim * 8
    assert pool.block_bytes == block and cache.nbytes == 2 * 2 * block and pool.nbytes == 10 * block


def test_a_known_prefix_is_shared_in_full_blocks_and_one_token_is_left_to_compute():
    model, pool, ids = sharp(), BlockPool(CFG, 12, 4), tokens(1, 12)
    text, table = ids[0].tolist(), BlockTable(pool)
    logits = model(ids, PagedCache.over([table]))
    pool.remember(table, text)
    assert (
        pool.match(text).length == 8
    )  # of three full blocks two: the last holds the token whose logits are asked
    longer = pool.match(text + [1])
    assert longer.length == 12 and longer.blocks == table.blocks
    assert (
        pool.match(text[:6]).length == 4
        and pool.match([*text[:4], 49 - text[4], *text[5:]]).length == 4
    )
    other = BlockTable(pool)
    model(ids[:, 1:8], PagedCache.over([other]))
    pool.remember(other, text[1:10])
    assert pool.match(text[1:11]).length == 4  # the eighth token has a slot but is not written yet
    assert pool.match(text[4:]).length == 0  # the same block after another prefix holds other keys
    warm = pool.match(text)
    torch.testing.assert_close(
        model(ids[:, 8:], PagedCache.over([warm])), logits[:, 8:], atol=1e-10, rtol=0
    )


def test_a_hash_collision_is_no_match():
    class Same(int):
        __hash__ = lambda self: 1  # noqa: E731

    model, pool, ids = sharp(), BlockPool(CFG, 12, 4), tokens(1, 5)
    table = BlockTable(pool)
    model(ids, PagedCache.over([table]))
    text = [Same(token) for token in ids[0].tolist()]
    other = [Same(49 - token) for token in ids[0].tolist()]
    pool.remember(table, text)
    assert hash(tuple(text[:4])) == hash(tuple(other[:4]))
    assert pool.match(text).length == 4 and pool.match(other).length == 0


def test_freed_prefixes_are_revived_until_their_blocks_are_needed_oldest_first():
    model, pool = sharp(), BlockPool(CFG, 4, 4)
    old, new = tokens(1, 8, seed=3), tokens(1, 8, seed=4)
    for ids in (old, new):
        table = BlockTable(pool)
        model(ids, PagedCache.over([table]))
        pool.remember(table, ids[0].tolist())
        table.truncate(0)
    assert pool.used == 0
    revived = pool.match([*old[0].tolist(), 1])
    assert revived.length == 8 and pool.used == 2
    revived.truncate(0)
    taken = [table.blocks[0] for table in in_use(pool, 2)]
    assert (
        pool.match([*old[0].tolist(), 1]).length == 8
        and pool.match([*new[0].tolist(), 1]).length == 0
    )
    assert set(taken).isdisjoint(revived.blocks)


def test_a_freed_block_without_a_known_prefix_is_taken_first():
    model, pool, ids = sharp(), BlockPool(CFG, 3, 4), tokens(1, 4)
    table = BlockTable(pool)
    model(ids, PagedCache.over([table]))
    pool.remember(table, ids[0].tolist())
    table.truncate(0)
    for other in in_use(pool, 2):
        other.truncate(0)
    in_use(pool, 2)
    assert pool.match([*ids[0].tolist(), 1]).length == 4


def test_equal_tokens_computed_twice_keep_the_first_block_and_chain_on():
    model, pool, ids = sharp(), BlockPool(CFG, 8, 4), tokens(1, 9)
    first, second = BlockTable(pool), BlockTable(pool)
    text = ids[0].tolist()
    model(ids[:, :4], PagedCache.over([first]))
    model(ids, PagedCache.over([second]))
    pool.remember(first, text), pool.remember(second, text)
    both = pool.match(text)
    assert both.blocks == [first.blocks[0], second.blocks[1]]
    both.truncate(0), first.truncate(0)
    in_use(pool, len(pool.free))
    pool.remember(second, text)  # its second block had a name after the block that is gone
    assert (
        pool.match(text).blocks == second.blocks[:2] and len(pool.known) == len(pool.prefixes) == 2
    )


ACTS = ["join", "grow", "fork", "cut", "leave", "name", "match"]
operations = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 99)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(operations=operations, block_size=st.integers(1, 4))
def test_whatever_joins_forks_and_leaves_references_stay_exact(operations, block_size):
    pool = BlockPool(replace(CFG, n_layers=1), 12, block_size)
    pool.write(
        0,
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(2, 0, CFG.kv_heads, CFG.head_dim, dtype=torch.int64),
    )
    keys = pool.store[0, 0].flatten(0, 1)  # by slot
    tables, texts = [], []  # texts: what each table must hold, whatever happens to the others
    for name, n in operations:
        i = n % len(tables) if tables else None
        if name == "join":
            tables.append(BlockTable(pool)), texts.append([])
        elif name == "match" and tables:
            tables.append(pool.match(texts[i])), texts.append(texts[i][: tables[-1].length])
        elif name == "fork" and tables:
            cache = PagedCache.over([tables[i]])
            cache.select(torch.tensor([0, 0]))
            tables[i : i + 1], texts[i : i + 1] = cache.tables, [texts[i], list(texts[i])]
        elif name == "cut" and tables:
            length = n % (len(texts[i]) + 1)
            tables[i].truncate(length), texts[i].__delitem__(slice(length, None))
        elif name == "name" and tables:
            pool.remember(tables[i], texts[i])
        elif name == "leave" and tables:
            tables.pop(i).truncate(0), texts.pop(i)
        elif name == "grow" and tables:
            T = 1 + n % 5
            try:
                tables[i].reserve(T)
            except PoolExhausted:  # nothing was taken
                assert pool.blocks_for(tables[i].length + T) > len(tables[i].blocks)
            else:
                texts[i] += [n * 7 + k for k in range(T)]
                for at in range(tables[i].length, tables[i].length + T):
                    keys[tables[i].blocks[at // block_size] * block_size + at % block_size] = texts[
                        i
                    ][at]
                tables[i].length += T
        held = [block for table in tables for block in table.blocks]
        assert pool.references == [held.count(block) for block in range(12)]
        assert (
            set(pool.free) == set(range(12)) - set(held)
            and pool.used + len(pool.free) == pool.blocks == 12
        )
        assert {pool.prefixes[key][1]: key for key in pool.prefixes} == pool.known
        for table, text in zip(tables, texts, strict=True):
            slots = [
                table.blocks[at // block_size] * block_size + at % block_size
                for at in range(table.length)
            ]
            assert keys[slots, 0, 0].tolist() == text
            assert len(table.blocks) * block_size - table.length < block_size


def test_double_free_and_use_after_free_are_named():
    pool = BlockPool(CFG, 3)
    model, table = sharp(), BlockTable(pool)
    model(tokens(1, 18), PagedCache.over([table]))
    pool.put(table.blocks[0], 0)  # a full block, which would be read and not written
    unknown = BlockTable(pool)
    unknown.blocks, unknown.length = [7], 16
    for bad, block in ((table, 0), (unknown, 7)):
        message = f"block {block} is not in use: it was freed or never allocated"
        for use in (
            lambda bad=bad: model(tokens(1, 1), PagedCache.over([bad])),
            lambda bad=bad: bad.truncate(0),
        ):
            with pytest.raises(ValueError, match=message):
                use()


def test_an_exhausted_pool_is_named_and_costs_nothing_that_was_stored():
    model, pool = sharp(), BlockPool(CFG, 2, 4)
    cache, ids = make_cache(CFG, "paged", pool=pool), tokens(1, 12)
    start = model(ids[:, :7], cache)
    with pytest.raises(
        PoolExhausted,
        match="all 2 blocks of the pool are in use: release a sequence, or make a larger pool",
    ):
        model(ids[:, 7:], cache)
    end = model(ids[:, 7:8], cache)
    torch.testing.assert_close(
        torch.cat((start, end), dim=1), model(ids[:, :8]), atol=1e-10, rtol=0
    )


def test_an_impossible_pool_and_one_of_another_model_are_named():
    with pytest.raises(ValueError, match="blocks 0 is not positive: give at least 1"):
        BlockPool(CFG, 0)
    with pytest.raises(ValueError, match="block_size 0 is not positive: give at least 1"):
        make_cache(CFG, "paged", block_size=0)
    pool = BlockPool(CFG, 4, 8, dtype=torch.float32)
    for cfg, options in (
        (replace(CFG, n_layers=1), {}),
        (CFG, {"block_size": 16}),
        (CFG, {"dtype": torch.float16}),
    ):
        with pytest.raises(
            ValueError, match=r"\(2, 2, 8, 8, None, torch.float32\) does not fit a cache of"
        ):
            make_cache(cfg, "paged", pool=pool, **options)
    with pytest.raises(
        ValueError,
        match="cache option 'window' is unknown to kind 'paged': its options are block_size, pool",
    ):
        make_cache(CFG, "paged", window=3)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@settings(max_examples=10, deadline=None)
@given(
    cfg=configs, starts=st.lists(st.integers(0, 8), min_size=1, max_size=4), cut=st.integers(1, 15)
)
def test_padded_rows_get_the_logits_of_their_own_tokens(kind, cfg, starts, cut):
    model, ids = sharp(cfg), tokens(len(starts), 16)
    cache = make_cache(cfg, kind, len(starts), 16, starts=torch.tensor(starts))
    got = torch.cat((model(ids[:, :cut], cache), model(ids[:, cut:], cache)), dim=1)
    assert got.isfinite().all()
    for row, start in enumerate(starts):
        torch.testing.assert_close(
            got[row, start:], model(ids[row : row + 1, start:])[0], atol=1e-10, rtol=0
        )


def test_padding_stands_at_position_0_and_sees_itself():
    cache = make_cache(CFG, "static", 2, starts=[2, 0])
    assert cache.positions(4).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    seen = cache.mask(4)
    assert seen[0, 0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert torch.equal(seen[1, 0], torch.ones(4, 4).tril().bool())


def test_padding_moves_with_its_rows():
    model, ids = sharp(), tokens(2, 10)
    cache = make_cache(CFG, "static", 2, starts=[4, 0])
    model(ids[:, :9], cache)
    cache.select(torch.tensor([1, 0, 0]))
    got = model(ids[[1, 0, 0], 9:], cache)
    for row, (source, start) in enumerate([(1, 0), (0, 4), (0, 4)]):
        torch.testing.assert_close(
            got[row], model(ids[source : source + 1, start:])[0, -1:], atol=1e-10, rtol=0
        )


@pytest.mark.parametrize("starts", [[1], [-1, 0], [0, 40]])
def test_impossible_padding_is_named(starts):
    with pytest.raises(ValueError, match="give a count from 0 to 39 for each of 2 rows"):
        make_cache(CFG, "static", 2, starts=starts)
