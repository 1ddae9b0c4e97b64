"""What the C engine is held against: bounds are the larger of reading and arithmetic, ratios
are of the same process, and everything is timed that the tables ask for."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from minitransformer import ModelConfig, bench
from studies import limits, limits_told, native

TINY = ModelConfig(vocab_size=64, d_model=32, n_heads=2)


def samples(times, processes=3, drift=0.2, **columns):
    """Samples whose every time drifts with the process, so that only paired ratios are exact."""
    rows = [
        dict(name=name, repeat=r, process=p, seconds=t * (1 + drift * p), **columns)
        for p in range(processes)
        for r in range(3)
        for name, t in times.items()
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(limits, "SHAPES", {"tiny": TINY})
    monkeypatch.setattr(limits, "SEED", TINY)


def floors(read, operation, processes=3, drift=0.2):
    """Floors of every process, which drift as the samples do: `read` seconds a format."""
    seconds = {**read, limits.CACHE: 0.5e-3, limits.OPERATION: operation}
    rows = [
        dict(shape="tiny", name=name, seconds=t * (1 + drift * p), process=p)
        for name, t in seconds.items()
        for p in range(processes)
    ]
    return pd.DataFrame(rows)


def test_a_step_is_held_against_the_larger_of_reading_and_arithmetic(tiny):
    times = {limits.EAGER: 8.0, "native FP32": 2.0, "native int8": 1.0, "native int4": 0.5}
    call = samples(dict.fromkeys(times, 3.0), shape="tiny", calls=1)  # and a prompt: no step's
    more = samples({name: 3 + t for name, t in times.items()}, shape="tiny", calls=11)
    steps = pd.concat([call, more])
    read = {name: t / 40 for name, t in times.items() if name != limits.EAGER}
    fast = limits.step_table(steps, floors(read, 1e-15)).set_index("format")
    assert fast.over_least["native FP32"] == pytest.approx(4)  # reading bounds it
    assert set(fast.mark) == {limits.READ}
    assert fast.over_fp32["native int4"] == pytest.approx(4)
    assert fast.over_eager["native int8"] == pytest.approx(8)
    assert fast.over_eager_low["native int8"] == pytest.approx(fast.over_eager_high["native int8"])
    work = 1.0 / (2 * bench.weights_read(TINY))  # seconds an operation: a second for a step
    slow = limits.step_table(steps, floors(read, work)).set_index("format")
    assert slow.over_least["native int4"] == pytest.approx(0.05)  # arithmetic bounds it
    assert set(slow.mark) == {limits.PRODUCT}


def test_two_threads_are_held_against_what_two_can_and_against_one(tiny):
    one = {limits.EAGER: 8.0, "native FP32": 2.0, "native int8": 1.0, "native int4": 0.5}
    two = {f"{name}{limits.TWO}": one[name] / 2 for name in native.FORMATS}
    steps = pd.concat(
        samples({name: 3 + (n - 1) * t for name, t in (one | two).items()}, shape="tiny", calls=n)
        for n in (1, 11)
    )
    alone = floors({name: one[name] / 4 for name in native.FORMATS}, 1e-15)
    shared = alone.assign(name=alone.name + limits.TWO, seconds=alone.seconds / 4)
    table = limits.step_table(steps, pd.concat([alone, shared]), limits.TWO)
    found = table.set_index("format")
    assert found.over_least["native FP32"] == pytest.approx(8)  # half the time, a quarter the least
    assert found.over_fp32["native int4"] == pytest.approx(4)
    assert found.over_alone["native int8"] == pytest.approx(2)
    every = limits_told.judged(table, "native", "over_alone", ["tiny"])
    assert list(every.case) == [f"tiny, {name}" for name in native.FORMATS]
    assert limits_told.judged(table, "native int4", "over_least", ["other"]).empty


def test_several_rows_cost_one_reading_until_arithmetic_is_more(tiny):
    names = [*native.FORMATS]
    read, work = dict.fromkeys(names, 1.0), 1.0 / (2 * bench.weights_read(TINY))
    found = pd.concat(
        samples(dict.fromkeys(names, 1.0 + m / 16), shape="tiny", rows=m) for m in limits.ROWS
    )
    flat = limits.row_table(found, floors(read, 1e-15))
    eight = flat[(flat.rows == 8) & (flat.format == "native FP32")].iloc[0]
    assert eight.over_least == pytest.approx(1.5) and eight.over_one == pytest.approx(1.5 / 1.0625)
    bound = limits.row_table(found, floors(read, work))
    eight = bound[(bound.rows == 8) & (bound.format == "native FP32")].iloc[0]
    assert eight.over_least == pytest.approx(1.5 / 8)


def test_parts_of_a_step_make_the_whole_and_are_held_against_their_bytes(tiny):
    """Steps that cost four readings of the head, one of the rest: the head is named."""
    steps, floor = {}, {}
    for name, scheme in native.FORMATS.items():
        held = {p: limits.read_bytes(replace(TINY, **c), scheme) for p, c in limits.PARTS.items()}
        floor[name] = whole = limits.read_bytes(TINY, scheme)
        head = whole - held["head and choice"]
        steps[f"{limits.WHOLE}, {name}"] = whole + 3 * head
        steps[f"head and choice, {name}"] = whole - head
        steps[f"feed-forward, {name}"] = held["feed-forward"] + 3 * head
    call = samples(dict.fromkeys(steps, 5.0), calls=1)
    more = samples({name: 5 + 10 * t for name, t in steps.items()}, calls=11)
    found = limits.part_table(pd.concat([call, more]), floors(floor, 1e-15))
    assert list(found.format.unique()) == list(native.FORMATS)
    for name, table in found.set_index("part").groupby("format"):
        assert table.us.iloc[:-1].sum() == pytest.approx(table.us[limits.WHOLE])
        assert table.KiB.iloc[:-1].sum() == pytest.approx(floor[name] / 1024)
        assert table.over_least["head and choice"] == pytest.approx(4)
        assert table.over_least["feed-forward"] == pytest.approx(1)
        assert table.over_least[limits.REST] == pytest.approx(1)


def test_a_part_that_noise_hides_is_a_difference_like_the_others(tiny):
    """In one process of three both parts seem to take more than the whole: what is left is less
    than nothing there, and neither a nanosecond nor left out."""
    loops, taken = [], {limits.WHOLE: 1.0, "head and choice": 0.5}
    for process, left in enumerate((0.25, 0.3, -0.4)):
        own = taken | {"feed-forward": 0.5 + left}
        times = {f"{part}, {name}": t for part, t in own.items() for name in native.FORMATS}
        for calls in (1, 11):
            loop = {name: 5 + (calls - 1) * t for name, t in times.items()}
            loops.append(samples(loop, 1, calls=calls).assign(process=process))
    table = limits.part_table(pd.concat(loops), floors(dict.fromkeys(native.FORMATS, 1.0), 1e-15))
    for _, own in table.set_index("part").groupby("format"):
        assert own.us[limits.REST] == pytest.approx(1e6 * (0.25 + 0.3 - 0.4) / 3)
        assert own.us.iloc[:-1].sum() == pytest.approx(own.us[limits.WHOLE])
        assert own.us_low[limits.REST] < 0 < own.us_high[limits.REST]
        assert own.over_least_low[limits.REST] < 0 < own.over_least_high[limits.REST]


def test_where_noise_is_more_than_the_steps_all_of_the_loop_is_theirs():
    call, loop = samples({"a": 3.0, "b": 9.0}, calls=1), samples({"a": 8.0, "b": 8.0}, calls=11)
    steps = limits.per_step(pd.concat([call, loop]))
    assert steps.a.tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert steps.b.tolist() == pytest.approx([8 / 11, 1.2 * 8 / 11, 1.4 * 8 / 11])


def test_times_the_mark_is_the_ratio_of_the_columns_beside_it(tiny):
    """Processes of unlike speed, whose ratios to their own readings are unlike as well."""
    steps = [f"{part}, {n}" for part in (limits.WHOLE, *limits.PARTS) for n in native.FORMATS]
    loops, readings = [], []
    for process, (step, reading) in enumerate([(1.0, 1.0), (2.0, 1.5), (9.0, 2.0)]):
        own = {name: step * (1 if limits.WHOLE in name else 0.75) for name in steps}
        for calls in (1, 11):
            times = {name: 5 + (calls - 1) * t for name, t in own.items()}
            loops.append(samples(times, 1, calls=calls).assign(process=process))
        read = floors(dict.fromkeys(native.FORMATS, reading), 1e-15, 1)
        readings.append(read.assign(process=process))
    table = limits.part_table(pd.concat(loops), pd.concat(readings))
    assert table.over_least.tolist() == pytest.approx((table.us / table.least_us).tolist())
    assert (table.over_least_low < table.over_least).all()
    assert (table.over_least < table.over_least_high).all()


def test_eight_rows_are_told_and_judged_at_every_shape():
    found = {"shape": ["a", "b", "a"], "over_least": [2.25, 1.6, 9], "ms": [0.148, 20.0, 0.05]}
    rows = pd.DataFrame({**found, "rows": [8, 8, 1], "format": "native FP32"})
    rows = rows.assign(over_least_low=1.0, over_least_high=3.0)
    steps = pd.DataFrame({"shape": ["a"], "format": "native FP32", "us": [30.0]})
    told = limits_told.rows_for_sentence(rows, steps)
    assert (told["times"], told["first"]) == ("2.25 (a), 1.60 (b)", "a")
    assert (told["all"], told["beyond"]) == (pytest.approx(148), pytest.approx(20))
    assert told["left"] == pytest.approx(2.25 * 128 / 148)
    assert list(limits_told.row_cases(rows)) == ["shape", "over_least", "low", "high"]
    assert list(limits_told.row_cases(rows)["shape"]) == ["a", "b"]


def step_rows(shapes):
    """A table of steps whose ratios say from which column and row they are."""
    rows = pd.DataFrame({"shape": np.repeat(shapes, 3), "format": [*native.FORMATS] * len(shapes)})
    for i, name in enumerate(("over_least", "over_fp32", "over_alone")):
        ends = {f"{name}_low": i + 0.5, name: i + 1.0, f"{name}_high": i + 1.5}
        rows = rows.assign(**ends, **{f"{name}_spread": 1.1})
    return rows.assign(us=7.0)


def test_each_bar_on_steps_reads_its_own_rows_and_the_first_shape_is_apart():
    one, two = step_rows(["a", "b", "c"]), step_rows(["a", "b", "c"]).assign(over_least=9.0)
    found = limits_told.step_cases(one, two)
    assert list(found["engine-floor"].case) == ["a, native FP32"]
    few = ["b, native int8", "b, native int4", "c, native int8", "c, native int4"]
    assert list(found["engine-few-bits"].case) == list(found["engine-two-few-bits"].case) == few
    assert set(found["engine-two-few-bits"].over_least) == {9} and len(found) == 10
    assert set(found["engine-threads"].over_alone) == {3} and len(found["engine-threads"]) == 6
    assert set(limits_told.step_cases(step_rows(["a"]), two)) == {"engine-floor"}


def test_each_bar_on_kinds_reads_one_row():
    rows = [dict(cache=kind, tokens=n, over_static=n + i, over_first=-i - n)
            for n in (512, 4096) for i, kind in enumerate(limits.KINDS)]  # fmt: skip
    table = pd.DataFrame(rows)
    for name in ("over_static", "over_first"):
        table = table.assign(**{f"{name}_low": 0.0, f"{name}_high": 1.0})
    found = {id: own.iloc[0].tolist()[:2] for id, own in limits_told.kind_cases(table).items()}
    assert found["engine-int8-cache-short"] == ["512 tokens", 514]
    assert found["engine-int8-cache"] == ["4,096 tokens", 4098]
    assert found["engine-window"] == ["4,096 tokens", -4099] and len(found) == 4
    assert list(limits_told.kind_cases(table)["engine-paged"].case) == [
        "512 tokens",
        "4,096 tokens",
    ]


def test_a_table_is_worded_with_the_interval_and_spread_behind_each_ratio():
    table = limits_told.worded(step_rows(["a"]))
    assert "over_least" not in " ".join(table) and table.columns[0] == "model"
    behind = ["times the mark low", "times the mark", "times the mark high"]
    assert {*behind, "times the mark, spread", "µs a step"} <= {*table}
    prompts = step_rows(["a"]).rename(columns=lambda name: name.replace("over_least", "over_eager"))
    cases = limits_told.prompt_cases(prompts.assign(tokens=64))
    assert cases.case[0] == "a, 64 tokens" and cases.columns[1] == "over_eager"


def test_sentences_name_what_is_furthest_what_is_left_and_how_far_the_mark_is():
    each = {"part": ["a", limits.REST, limits.WHOLE] * 3, "over_least": [1.4, 1.3, 9.0] * 3}
    each |= {"over_least_low": [0.9, 1.2, 8.0] * 3, "over_least_high": [2.0, 1.4, 9.5] * 3}
    parts = pd.DataFrame({**each, "format": np.repeat([*native.FORMATS], 3), "us": range(9)})
    parts = parts.assign(us_low=parts.us - 2, us_high=parts.us + 2.0)
    parts.loc[3:, "over_least_low"] = 7.0  # of few bits the mark is no limit
    each = "1.0 [−1.0, 3.0], 4.0 [2.0, 6.0], 7.0 [5.0, 9.0]"
    rest = f"Attention, norms and the loop take {each} µs in FP32, int8 and int4; in int4 a"
    told = f"Furthest above reading alone in FP32: {limits.REST}, 1.30 [1.20, 1.40] times. {rest}"
    assert limits_told.parts_told(parts) == f"{told} whole step takes 8.0."
    under = limits_told.parts_told(
        parts.assign(over_least_low=parts.over_least_low.clip(upper=0.8))
    )
    assert under.startswith(f"In FP32 no part surely takes longer than reading its weights. {rest}")
    alone = limits_told.parts_told(parts.assign(over_least_low=np.nan))  # of one process
    assert alone.startswith("In FP32 no part surely takes")
    assert limits_told.not_run([*limits.SHAPES]) == "All of them are run."
    assert limits_told.not_run([*limits.SHAPES][:4]).endswith(": 12 × 768, untied (162M).")
    for name, cfg in limits.SHAPES.items():
        millions = sum(bench.parameters(cfg).values()) / 1e6
        assert "M)" not in name or f"({millions:.0f}M)" in name
    told = limits_told.summary(step_rows(["a", "b"]))
    assert told.startswith("At a a step takes **7 µs** in FP32, 1.0 [0.5, 1.5] times reading")
    assert "; at b a step" in told and "too high" not in told
    low = limits_told.summary(step_rows(["a"]).assign(over_least_high=0.99))
    assert "[0.50, 0.99] times reading its weights or multiplying, a mark too high there, " in low


def test_a_mark_is_too_high_where_a_step_surely_takes_less_than_reading():
    steps = step_rows(["a", "b, c"]).assign(over_least_high=[0.9, 1.1, 0.9, 0.9, 0.9, np.nan])
    steps = steps.assign(mark=[limits.READ] * 2 + [limits.PRODUCT] + [limits.READ] * 3)
    told = "Reading is too high a mark, as a step surely takes less, "
    assert limits_told.too_high(steps) == told + "in FP32 at a, b, c; in int8 at b, c."
    assert limits_told.too_high(steps.assign(over_least_high=1.5)).startswith("No step surely")


def test_a_prompt_is_held_against_the_peak_of_a_product(tiny):
    work = bench.flops(TINY, 8, head_positions=0) * 1e-9
    timed = samples({limits.EAGER: 2 * work, "native": 4 * work}, shape="tiny", tokens=8)
    row = limits.prompt_table(timed, floors(dict.fromkeys(native.FORMATS, 1.0), 1e-9)).iloc[0]
    assert (row.eager_peak, row.native_peak) == (pytest.approx(50), pytest.approx(25))
    assert row.over_eager == pytest.approx(0.5)


def test_a_cache_kind_is_compared_with_static_and_with_itself():
    short = dict(static=1.0, paged=1.1, int8=0.9, window=1.0)
    long = dict(static=4.0, paged=4.0, int8=3.0, window=2.0)
    both = pd.concat([samples(short, calls=10), samples(long, calls=20)])
    table = limits.kind_table(both).set_index(["cache", "tokens"])
    assert table.over_static["paged", 10] == pytest.approx(1.1)
    assert table.over_static["int8", 20] == pytest.approx(0.75)
    assert table.over_first["window", 20] == pytest.approx(1)
    assert table.over_first["static", 20] == pytest.approx(2)


def test_what_a_cache_is_worth_is_bounded_by_the_roofline(tiny):
    times = {limits.CACHED: 1.0, limits.RECOMPUTED: 30.0, limits.NAIVE: 90.0}
    read = dict.fromkeys(native.FORMATS, 1e-3)
    found = limits.worth(samples(times), floors(read, 1e-15))
    assert found["speedup"]["estimate"] == pytest.approx(30)
    assert found["over_naive"]["estimate"] == pytest.approx(90)
    assert found["reached_percent"]["estimate"] == pytest.approx(75)
    assert found["roofline"]["estimate"] == pytest.approx(1 / 1.5)  # bound by reading alone


@pytest.mark.skipif(bool(native.missing()), reason="no C compiler")
def test_one_process_measures_all_that_the_tables_ask_for(tiny, monkeypatch):
    monkeypatch.setattr(limits, "PROMPTS", (8, 16))
    monkeypatch.setattr(limits, "KINDS", ("static", "paged", "window"))
    cfg = replace(TINY, context=600)
    monkeypatch.setattr(limits, "SHAPES", {"tiny": cfg})
    monkeypatch.setattr(limits, "SEED", cfg)
    monkeypatch.setattr(limits, "HEAVY", 0)  # half of two repeats
    found = {k: t.assign(process=0) for k, t in limits.measure(1, 2, 0, deep=64).items()}
    for name, repeats in {"steps": 1, "rows": 1, "prompts": 1, "kinds": 2}.items():
        assert found[name].repeat.nunique() == repeats
    assert len(limits.step_table(found["steps"], found["floors"])) == len(native.FORMATS)
    table = limits.row_table(found["rows"], found["floors"])
    assert len(table) == len(native.FORMATS) * len(limits.ROWS)
    prompts = limits.prompt_table(found["prompts"], found["floors"])
    assert list(prompts.tokens) == [8, 16] and (prompts.native_peak > 0).all()
    shares = limits.part_table(found["parts"], found["floors"])
    assert list(shares.format.unique()) == [*native.FORMATS] and len(shares) == 12
    assert (limits.kind_table(found["kinds"]).us_per_token > 0).all()
    assert limits.worth(found["loops"], found["floors"])["over_naive"]["estimate"] > 0
    two = limits.step_table(found["steps"], found["floors"], limits.TWO)
    assert list(two.format) == [*native.FORMATS] and (two.over_alone > 0).all()
    assert "One product in FP32, alone, " in limits_told.pays(found["threads"])


def test_heavy_shapes_are_timed_half_as_often():
    heavy = [name for name, cfg in limits.SHAPES.items() if limits.heavy(cfg)]
    assert heavy == [*limits.SHAPES][3:]
    assert [limits.fewer(limits.LARGEST, n) for n in (1, 2, 3, 32)] == [1, 1, 2, 16]
    assert limits.fewer(limits.SEED, 3) == 3


def test_a_prompt_is_timed_once_where_the_head_alone_differs():
    names = [*limits.SHAPES]
    assert limits.unlike(names) == names[:4] and limits.unlike(names[4:]) == names[4:]


@pytest.mark.skipif(bool(native.missing()), reason="no C compiler")
def test_heavy_shapes_have_a_call_before_each_timed_one_and_no_rounds_to_warm_up(monkeypatch):
    asked, interleaved = [], bench.interleaved

    def noted(ways, repeats, warmup=1, before=0):
        asked.append((warmup, before))
        return interleaved(ways, 1, 0)

    monkeypatch.setattr(limits.bench, "interleaved", noted)
    light = limits.of_shape(TINY, 1, 0, prompted=False)
    assert asked == [(1, 1)] * 2 + [(1, 2)] * len(limits.ROWS) and "prompts" not in light
    asked.clear()
    monkeypatch.setattr(limits, "HEAVY", 0)
    monkeypatch.setattr(limits, "PROMPTS", (8,))
    found = limits.of_shape(TINY, 1, 0, prompted=True)
    assert asked[:-1] == [(0, 1)] * 2 + [(0, 2)] * len(limits.ROWS) and len(found["prompts"]) == 2
    assert not any(table.isna().any(axis=None) for table in found.values())


def test_what_dealing_out_costs_is_what_two_threads_take_beyond_half_of_one():
    shape, formats = "1 × 128", [*native.FORMATS]
    one = pd.DataFrame({"shape": shape, "format": formats, "us": [40.0, 20, 16], "least_us": 30.0})
    two = one.assign(us=[21.0, 26.0, 24.0], least_us=10.0, mark="", over_least_high=0.5)
    assert limits_told.dealt(one, two) == (
        "Two threads read what FP32 reads 3.0 (1 × 128) to 3.0 times as fast as one. Beyond half "
        "of one's time few bits take, for each product or look at the cache dealt out, "
        "2.0 to 2.0 µs (1 × 128). "  # 16 µs of 7 in the block and the head
        + limits_told.too_high(two)
    )


def test_from_where_a_second_thread_pays_is_told():
    sizes = ([2**18, 2**17, 2**19], [2**18, 2**20], [2**18, np.inf], [np.inf])
    told = [limits_told.pays(pd.DataFrame({"bytes": b})) for b in sizes]
    own = "One product in FP32, alone, takes two threads at least a tenth less time than one thread"
    assert told[0] == f"{own} from 256 KiB to 1,024 KiB, the most tried."
    assert told[1] == f"{own} only at 1,024 KiB, the most tried."  # a size tried, none between two
    assert told[2] == told[3] == f"{own} at no size up to 1,024 KiB, the most tried."


def test_bytes_read_are_those_of_the_format(tiny):
    whole, eight, four = (limits.read_bytes(TINY, scheme) for scheme in native.FORMATS.values())
    assert whole == 4 * bench.weights_read(TINY)
    assert 3.9 < whole / eight < 4 and 7 < whole / four < 7.2  # scales included
    assert list(limits.stored(["tiny"]).KiB) == [round(n / 1024) for n in (whole, eight, four)]
