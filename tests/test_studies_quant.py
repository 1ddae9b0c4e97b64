"""The experiments of the quantization chapter, at tiny size: known answers and invariants."""

import numpy as np
import pandas as pd
import pytest
import torch

from minitransformer.checkpoint import save
from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import quantize
from minitransformer.train import initialize
from studies import (
    calibration,
    finetune,
    formats,
    kernels,
    mixed,
    native,
    quant_tables,
    seed_quant,
    seeds,
)
from studies.scores import Scores, estimate
from ticking import ticking

CFG = ModelConfig(vocab_size=41, d_model=32, n_heads=2, context=64)
WINDOW = 32


@pytest.fixture(scope="module")
def model():
    return initialize(Transformer(CFG), "scaled", 0).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(0).integers(0, 41, 4000)


@pytest.fixture(scope="module")
def scores(model, ids):
    found = Scores(ids[:321], WINDOW)
    names = formats.formats()
    for name, own in formats.made(model, names).items():
        found.add(name, own)
    return found


def test_the_size_told_of_a_fine_tuned_model_is_that_of_its_format():
    bench = pd.DataFrame(
        {"format": ["int4 g32", "int4 g32 asym"], "times_smaller": [6.784, 6.5932]}
    )
    assert quant_tables.tuned_times(bench) == {"times": "6.59×"}
    assert quant_tables.tuned_times(bench[:1]) == quant_tables.tuned_times(pd.DataFrame()) == {}


def test_scores_are_paired_and_kept(model, ids):
    calls = []
    found = Scores(ids[:65], WINDOW, done=calls.append)
    assert found.add("fp32", model) is found.add("fp32", None) and calls == [1]
    found.kept["worse"] = found.kept["fp32"] + 0.1
    assert found.added("worse")["added_percent"] == pytest.approx(100 * np.expm1(0.1))
    assert found.added("worse")["low"] == pytest.approx(100 * np.expm1(0.1))
    found.kept["half"] = found.kept["fp32"] + 0.05
    assert found.recovered("half", "worse")["recovered_percent"] == pytest.approx(50)
    assert found.table(["worse"]).format.tolist() == ["worse"]
    row = {"over_low": 1.0, "over_high": 3.0, "over_added_percent": 2.0}
    assert estimate(row, "over_") == (2.0, (1.0, 3.0))
    same, told = {"a": model, "b": model}, []
    both = Scores(ids[:65], WINDOW).of(same, lambda items, what: told.append(what) or items)
    assert list(both.kept) == ["a", "b"] and told == ["formats scored"]
    assert both.added("a", "b")["added_percent"] == 0
    found.kept["same"] = found.kept["fp32"] - 0.05  # nothing was lost: no share of it
    assert np.isnan(list(found.recovered("half", "same").values())).all()


def test_scores_go_on_in_another_chapter(model, ids, tmp_path):
    found = Scores(ids[:65], WINDOW)
    found.add("fp32", model)
    found.kept["1 block, odd / name"] = found.kept["fp32"] + 0.25
    found.save(tmp_path / "scores.npz")
    back = Scores.load(tmp_path / "scores.npz")
    assert (
        back.window == WINDOW
        and (back.ids == ids[:65]).all()
        and list(back.kept)
        == [
            "fp32",
            "1 block, odd / name",
        ]
    )
    for name, own in found.kept.items():
        np.testing.assert_allclose(back.kept[name], own, rtol=1e-6)
    assert back.add("again", model) == pytest.approx(found.kept["fp32"])


def test_three_counts_of_bytes_agree_and_the_seeds_model_is_as_small_as_known(model):
    table = formats.sizes(formats.made(model, ["fp32", "int8 channel", "int4 g32 asym", "nf4 g64"]))
    assert formats.agreeing(table) == 4 and table.times_smaller[0] == 1
    table.loc[1, "resident_bytes"] += 1
    assert formats.agreeing(table) == 3
    ratios = formats.default_ratios().set_index("format").times
    assert ratios["int8 channel"] == pytest.approx(3.85, abs=0.01)
    assert ratios["int4 g32"] == pytest.approx(6.78, abs=0.01)
    assert formats.round_trips().back_exactly.all()
    assert formats.codes_alone(8) == 4 and formats.codes_alone(4) == 8


def test_errors_follow_the_step_and_codes_the_rule(model):
    names = ["int8 channel", "int4 channel"]
    errors = formats.matrix_errors(model, formats.made(model, names))
    assert formats.snr_grid(errors).shape == (len(errors) // 2, 2)
    assert formats.off_the_step(errors) < 2
    assert formats.off_centre(model) < 0.5
    moved = initialize(Transformer(CFG), "scaled", 0)
    with torch.no_grad():
        moved.head.weight += 3 * moved.head.weight.std()
    assert formats.off_centre(moved) == pytest.approx(3, abs=0.1)
    layout = formats.seed_layout()
    assert layout.share_percent.sum() == pytest.approx(100)
    assert layout.set_index("part").bytes["position table, FP32"] == 4 * 512 * 128


def test_zero_points_are_compared_with_both_symmetric_rules(model, scores):
    table = formats.zero_points(model, scores).set_index("format")
    gap = scores.added("int2 g32 asym", "int2 g32")["added_percent"]
    assert table.gap_percent["int2 g32"] == gap and table.more_bytes_percent["int2 g32"] > 0
    assert abs(table.gap_percent["int8 channel"]) < abs(table.gap_percent["int2 g32"])
    signed = scores.added("int2 g32 full range", "int2 g32")["added_percent"]
    assert formats.signed_gap(table.loc["int2 g32"]) == pytest.approx(signed)


def test_methods_are_compared_in_one_format_and_chosen_on_validation(model, ids, scores, tmp_path):
    fitting = calibration.windows(ids, 200, WINDOW)
    assert fitting.shape == (6, WINDOW)
    save(model, tmp_path)
    given, seen = ({"one": tmp_path}, {"one": scores}, [4, 2], fitting, ids[400:500]), []
    table = calibration.compare(*given, progress=ticking(seen.append))
    assert sum(seen) == len(calibration.trials(given[0], [4, 2])) == 8
    of_rtn = scores.kept["int2 rtn"]
    np.testing.assert_array_equal(of_rtn, scores.add("2", quantize(model, finetune.scheme(2))))
    pd.testing.assert_frame_equal(calibration.compare(*given, threads=2), table)
    shares = table[table.method == "rtn"].recovered_percent  # NaN where nothing was surely lost
    assert len(table) == 8 and not (shares.abs() > 1e-9).any()
    pick = calibration.chosen(table)
    assert pick.bits.tolist() == [2, 4] and "rtn" not in set(pick.method)
    for row in pick.itertuples():
        rivals = table[(table.bits == row.bits) & (table.method != "rtn")]
        assert row.validation_nats == rivals.validation_nats.min()
    grid = calibration.output_errors(model, 2, fitting, calibration.windows(ids, 64, WINDOW))
    assert (grid["GPTQ"] < grid["rounded"]).mean() > 0.5
    assert calibration.chosen_on({"valid": ids[:1], "train": ids}) is ids
    table = calibration.activations(model, scores, fitting)
    assert table.over_rounded_added_percent.abs().max() < 1 and (table.times_smaller > 3).all()
    assert (calibration.outliers(model, fitting) >= 1).all()


def test_fine_tunes_learn_from_their_control_and_pack_exactly(model, ids, scores, tmp_path):
    plan = finetune.Plan(2, 2, WINDOW, 3e-3, 1e-3, 1)
    ticks = []

    def tick(steps):
        ticks.append(steps)
        return True  # as a progress bar does where it has drawn itself again

    start, place, bar = tmp_path / "model", tmp_path / "qat", ticking(tick)
    save(model, start)
    tuned, exact = finetune.fine_tunes({"one": start}, ids, [4, 2], plan, place, progress=bar)
    assert sum(ticks) == 6 and list(tuned["one"]) == ["control", 4, 2] and exact == (2, 2)
    table = finetune.over_control("one", tuned["one"], scores)
    assert table.bits.tolist() == [4, 2] and (table.low <= table.added_percent).all()
    assert (table.control_percent == scores.added("control", "fp32")["added_percent"]).all()
    again = finetune.fine_tunes({"one": start}, ids, [4, 2], plan, tmp_path / "two", threads=2)[0]
    probe = torch.from_numpy(ids[:WINDOW].copy())[None]
    for width, each in again["one"].items():
        assert torch.equal(each(probe), tuned["one"][width](probe))  # however many at once
    control = place / "model" / "control"
    told = finetune.teachers(start, control, ids, [4, 2], plan, scores, progress=bar)
    assert len(told) == 3 and np.isnan(told.teacher_added_percent[0])
    assert told.lr.tolist() == [plan.lr, plan.control_lr, plan.lr]  # in two bits the same
    assert told.teacher_lr[1:].tolist() == [plan.lr, plan.lr]
    cases = quant_tables.teacher_cases(told)
    assert cases.format.tolist() == ["int4", "int2"] and [*cases][1:] == [
        "added_percent",
        "low",
        "high",
    ]
    grown = finetune.from_scratch(CFG, ids, plan, scores, threads=1, progress=bar)
    assert (
        grown.bits.tolist() == [4, 2] and (grown.over_rounded_low < grown.over_rounded_high).all()
    )


def test_a_mixture_keeps_its_limit_and_its_file(model, ids, scores, tmp_path):
    table, alone = mixed.felt(model, ids[400:500], WINDOW)
    assert mixed.grid(table).shape[1] == 3
    found, schemes = mixed.under_budgets(model, alone, scores)
    assert (found.bytes <= found.limit_bytes).all()
    scheme = schemes["int3 bytes"]
    assert mixed.in_file(tmp_path / "s.json", scheme, CFG) == (1, 1)
    assert set(mixed.spent(scheme).format) <= set(mixed.palette())
    three = dict.fromkeys(scheme, mixed.palette()["int3"])
    assert mixed.moved(three) == {"moved": 0, "all": len(scheme)}
    other = dict(zip(three, mixed.palette().values(), strict=False))
    assert mixed.moved(three | other)["moved"] == len(other) - 1


ENGINE = pytest.mark.skipif(bool(native.missing()), reason="no C compiler")


def timed(model, folder):
    save(model, folder / "model")
    return {n: t.assign(process=0) for n, t in kernels.measure(folder, 2, 0).items()}


def test_every_way_to_run_is_timed_beside_fp32(model, tmp_path, scores):
    samples, (ways, checked, _) = timed(model, tmp_path), kernels.running(model)
    assert set(samples["steps"].name) == set(ways)
    assert all(error < 0.05 for _, error, _ in checked)
    assert kernels.worst_error(checked) == max(error for _, error, _ in checked)
    sizes = formats.sizes(formats.made(model, ["fp32", *kernels.SUITS]))
    table = kernels.step_table(samples, ways, {}, sizes).set_index("how")
    assert table.label["fp32"] == "baseline" and table.time_ratio["fp32"] == pytest.approx(1)
    assert "spread" in table
    assert set(table.label[table.kernel == "dequantized"]) == {"FP32-resident"}
    assert "not decided" in set(table.label) and "fast" not in set(table.label)
    costs = kernels.as_run(ways, {}, scores)
    assert costs["fp32"] == 0 and set(costs.index) == set(ways)
    shown = kernels.shown(table.reset_index(), costs).set_index("how")
    assert shown.added_percent["fp32"] == 0 and "memory over file" in shown
    said, lines, holds = kernels.proof(checked)
    assert "of PyTorch and ONNX Runtime" in said and lines is checked and holds
    kept = scores.added("int4 g32")["added_percent"]
    assert costs["int4 g32, each call"] == costs["int4 g32, once"] == kept
    assert "was not measured" in kernels.in_words(table.reset_index())


@ENGINE
def test_native_formats_are_held_against_the_engines_own_fp32(model, tmp_path, scores):
    samples, engines = timed(model, tmp_path), native.packed(model)
    sizes = formats.sizes(formats.made(model, ["fp32", *kernels.SUITS]))
    slower = samples["native_steps"].assign(process=1)
    slower.loc[slower.name == "native int8", "seconds"] *= 3
    samples["native_steps"] = pd.concat([samples["native_steps"], slower])
    ways = {"fp32": model}
    table = kernels.step_table(samples, ways, engines, sizes).set_index("how")
    assert table.label["native FP32"] == "baseline" and table.time_ratio["native FP32"] == 1
    slow = table[(table.label == "slower") | (table.label == "not decided")]
    assert ((slow.low > 1) == (slow.label == "slower")).all() and len(slow) > 0
    assert table.label["native int8"] != "slower"  # three times as long in one process of two
    assert table.format[["native int8", "native int4"]].tolist() == ["int8 channel", "int4 g32"]
    assert table.resident_bytes["native int4"] < table.resident_bytes["native FP32"]
    assert kernels.native_gains(table[table.kernel != "native"].reset_index()).empty
    gains = kernels.native_gains(table.reset_index())
    own, eight = table.loc["native int8"], gains.set_index("format").loc["native int8"]
    assert eight.times == pytest.approx(1 / own.time_ratio)
    assert (eight.low, eight.high) == pytest.approx((1 / own.high, 1 / own.low))
    assert eight.low < eight.times < eight.high
    costs = kernels.as_run(ways, engines, scores)
    assert abs(costs["native FP32"]) < 1e-3 < abs(costs["native int4"])
    said = kernels.in_words(table.reset_index())
    assert "with int8 activations" in said and "(int8 channel) and" in said


def speeds(rows):
    columns = ["how", "format", "kernel", "time_ratio", "low", "high", "step_us"]
    return pd.DataFrame(rows, columns=columns)


def test_the_slower_of_the_fastest_kernels_answers():
    table = speeds(
        [
            ("fp32", "fp32", "", 1.0, 1.0, 1.0, 500.0),
            ("int8, once", "int8 channel", "dequantized", 0.1, 0.1, 0.1, 50.0),
            ("int8, each call", "int8 channel", "each call", 0.2, 0.1, 0.3, 90.0),
            ("int8 a", "int8 channel", "int8pack", 1.2, 1.1, 1.3, 600.0),
            ("native int8", "int8 channel", "native", 0.7, 0.6, 0.8, 24.0),
            ("int4 a", "int4 g32", "int4pack", 0.9, 0.8, 1.0, 450.0),
            ("native int4", "int4 g32", "native", 0.5, 0.4, 0.6, 20.0),
        ]
    )
    assert kernels.quickest_formats(table) == (0.7, (0.6, 0.8))
    without = table[table.kernel != "native"]
    assert kernels.quickest_formats(without) == (1.2, (1.1, 1.3))
    assert kernels.here(table, "Apart.") == (
        "Apart. On this CPU, in the same engine, the slower of int8 and int4 takes by the quickest "
        "kernel 0.70 [0.60, 0.80] times FP32's; PyTorch's and ONNX Runtime's kernels "
        "0.90 to 1.20 times."
    )


def test_the_figures_give_bytes_quality_and_time():
    speed = speeds(
        [
            ("fp32", "fp32", "", 1.0, 1.0, 1.0, 500.0),
            ("int8 a", "int8 channel", "int8pack", 2.0, 1.5, 2.5, 1000.0),
            ("native int8", "int8 channel", "native", 0.5, 0.4, 0.6, 20.0),
        ]
    )
    sizes = pd.DataFrame({"format": ["fp32", "int8 channel"], "file_bytes": [4096, 1024]})
    steps = quant_tables.bytes_and_time(speed, sizes).set_index("how")
    assert steps.file_kib["native int8"] == 1 and steps.step_us["native int8"] == 20
    assert steps.loc["native int8", ["low", "high"]].tolist() == [16, 24]
    assert steps.loc["int8 a", ["low", "high"]].tolist() == [750, 1250]
    costs = pd.DataFrame(
        {
            "format": ["fp32", "int8 channel"],
            "added_percent": [0.0, 2.0],
            "low": [0.0, 1.0],
            "high": [0.0, 3.0],
        }
    )
    none = pd.DataFrame(columns=["model", "bits", "method", "added_percent", "low", "high"])
    none["validation_nats"] = pd.Series(dtype=float)
    front = quant_tables.front(sizes, costs, none, none, speed)
    assert front.label.tolist() == ["fp32", "int8 channel · 20 µs"]
    assert front.added_percent.tolist() == [0, 2.0] and front.file_kib.tolist() == [4.0, 1.0]
    tuned = pd.DataFrame(
        {"model": ["1 block"], "bits": [4], "added_percent": [1.0], "low": [0.0], "high": [2.0]}
    )
    more = pd.DataFrame(
        {"format": [*sizes.format, "int4 g32 asym"], "file_bytes": [4096, 1024, 512]}
    )
    front = quant_tables.front(more, costs, none, tuned, speed)
    assert front.compared.tolist() == [True, True, False] and front.format[2] == "int4 QAT"
    assert quant_tables.highlighted(front, 8) == {"int8 channel · 20 µs": "plum"}
    assert [bool(quant_tables.against(row)) for row in front.itertuples()] == [False, False, True]


def test_products_are_named_by_their_quickest_fp32_among_them():
    table = kernels.products([32], 2, 0)
    assert set(table[table.format == "fp32"].kernel) <= {"PyTorch", "native"}
    ran = table[(table.label != "refused") & (table.kernel != "dequantized") & (table.tokens == 1)]
    least = ran.median_us.min()
    whole = kernels.quickest(table.assign(resident_of_disk=1.0))  # all is small: a row a product
    assert whole.tokens.tolist() == [1, 64] and whole.median_us[0] == least
    told = kernels.by_width(pd.concat([table, table.assign(width=1096, median_us=7.0)]))
    assert told == f"{least:.1f} µs at width 32, 7.0 µs at width 1,096"
    place = ran.median_us.idxmin()
    both = kernels.quickest(table.assign(resident_of_disk=1.0 + (table.index == place)))
    assert both.tokens.tolist() == [1, 1, 64] and both.median_us[0] == least < both.median_us[1]
    assert set(kernels.grids(table)) == {"1 token", "64 tokens"}
    slow = table[table.label == "slower"]
    assert (slow.low > 1).all()  # one whose range holds 1 is not decided
    wide = kernels.decided(table.assign(low=0.5, high=1.5))
    assert "slower" not in set(wide.label)


def test_products_have_one_thread_whatever_the_run_has(monkeypatch):
    seen, table = [], kernels.bench.dispatch_table

    def watched(*given):
        seen.append(torch.get_num_threads())
        return table(*given)

    monkeypatch.setattr(kernels.bench, "dispatch_table", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        kernels.products([16], 1, 0)
        assert seen == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_engine_is_compared_with_the_quickest_other_kernel_of_a_format():
    table = pd.DataFrame(
        [
            (1, 128, "fp32", "none", "baseline", 3.0),
            (1, 128, "fp32", "native", "slower", 2.0),
            (1, 128, "int8", "onednn", "fast", 1.0),
            (1, 128, "int8", "fbgemm", "fast", 5.0),
            (1, 128, "int8", "native", "fast", 2.0),
            (1, 128, "int4", "int4pack", "refused", np.nan),
            (1, 128, "int4", "native", "fast", 1.0),
        ],
        columns=["tokens", "width", "format", "kernel", "label", "median_us"],
    )
    found = kernels.against_native(table)
    assert found.times.tolist() == [1.5, 0.5] and found.other.tolist() == ["none", "onednn"]
    slow = "for int8 and 1 token at width 128 (onednn, 2.00×)"
    assert kernels.not_quickest(found) == slow
    more = pd.concat([found, found[1:].assign(width=1024), found[1:].assign(tokens=64)])
    assert kernels.not_quickest(more) == (
        f"{slow}, 1,024 (onednn, 2.00×); for int8 and 64 tokens at width 128 (onednn, 2.00×)"
    )
    assert kernels.not_quickest(found[:1]) == "nowhere"


def test_the_seeds_drops_belong_to_one_baseline_that_it_does_not_report():
    assert seed_quant.implied_baselines().tolist() == [1052.43, 1052.43]
    assert seed_quant.own_differences().tolist() == [7.18, 9.44]


def test_where_a_further_run_falls():
    mean, (low, high) = seed_quant.further_run([1.0, 2.0, 3.0])
    # Student's t with two degrees of freedom, 4.303, times sqrt(1 + 1/3) standard deviations of 1
    assert mean == 2 and (high - low) / 2 == pytest.approx(4.303 * (4 / 3) ** 0.5, rel=1e-3)
    assert np.isnan(seed_quant.further_run([1.0])[1]).all()
    assert seed_quant.apart((3, (2, 4)), (1, (0, 2))) == (2, (0, 4))


def test_the_seeds_numbers_stand_beside_the_same_here(ids, tmp_path):
    for i, name in enumerate(("model-control", "model-control-1", "model", "model-2block")):
        save(initialize(Transformer(CFG), "scaled", i).eval(), tmp_path / name)
    controls = seed_quant.controls(tmp_path)
    assert len(controls) == 2  # of every initialisation there is, and nothing else
    runs = seed_quant.drops(controls, ids[:257])
    assert runs.groupby("format").size().eq(2).all()
    whole = runs[runs.format == "fp32"].set_index("run").perplexity
    four = runs[runs.format == "int4"].set_index("run")
    assert (four.added_perplexity == four.perplexity - whole).all()
    assert four.added_percent.tolist() == pytest.approx(
        (100 * (four.perplexity / whole - 1)).tolist()
    )
    assert seed_quant.initialisations_apart(runs) == pytest.approx(abs(whole[0] - whole[1]))
    samples = kernels.measure_seed(tmp_path, 2)
    timings = samples["seed"].assign(process=0)
    assert set(samples["heads"].name) == set(samples["rules"].name) == {"symmetric", "zero-points"}
    head = quantize(controls[0], formats.seed_rule(8)).head.weight()
    for way in kernels.by_rule(controls[0]).values():  # both make the numbers that it rounds to
        assert torch.equal(way(), head)
    table = seed_quant.beside(runs, timings)
    assert len(table) == 12 and table.original.notna().all()
    found = seed_quant.stated(table)
    assert found["int4 drop"][0] == pytest.approx(four.added_perplexity.mean())
    told = seeds.one_more_perplexity(np.log(whole))  # as the evaluation tells the same runs
    assert found["fp32 perplexity"] == (pytest.approx(told.value), pytest.approx(told.interval))
    assert found["int8 times"][0] > 0 and np.isnan(found["fp32 ms"][1]).all()
    told = seed_quant.compression(table)
    assert told == (pytest.approx(1.88, abs=0.005), None)
    surely = table.assign(high=5.0)  # per cent: no format is surely below 1
    assert seed_quant.compression(surely) == (1.0, None)
    said = seed_quant.drops_for_sentence(runs, found)
    assert (said["n"], said["its_eight"], said["its_four"]) == (2, 0.06, 2.32)
    assert said["gap"] == seed_quant.row_off()
    assert said["four"] == seed_quant.told(found, "int4 drop")
    few = {"int8 percent": (0.0, (-0.02, 0.02))}
    assert seed_quant.told(few, "int8 percent", " %") == "+0.000 % [−0.020, +0.020]"
    rows = [(i, 0, name, at) for i, once in enumerate((1.1, 1.3)) for name, at in
            (("fp32", 1.0), ("int8", 2.0), ("int8 once", once))]  # fmt: skip
    own = pd.DataFrame(rows, columns=["process", "repeat", "name", "seconds"])
    gone = seed_quant.unpacked_once(own)
    (share, (low, high)), left = gone["measured"], gone["x"]
    assert (share, left) == pytest.approx((80, np.sqrt(1.1 * 1.3))) and low < 70 and high > 90
    assert np.isnan(seed_quant.unpacked_once(timings)["measured"][1]).all()
    single = seed_quant.beside(runs[runs.run == 0], timings)
    assert np.isnan(seed_quant.compression(single)[1]).all()


def test_the_seeds_layout_is_as_it_reports_in_mib():
    layout = seed_quant.layout()
    assert layout.layout_mib.round(2).tolist() == [1.99, 1.06, 1.06]
    assert layout.layout_times.round(2).tolist() == [1.0, 1.88, 1.88]
    assert layout.packed_times["int4"] > 6.5 > layout.packed_times["int8"] > 3.7
    table = 4 * 512 * 128  # bytes of positions, which the original's layout has and ours has not
    assert layout.kept_times["int4"] == pytest.approx(
        layout.layout_bytes["fp32"] / (layout.packed_bytes["int4"] + table)
    )
    assert 100 > seed_quant.named_percent(8) > seed_quant.named_percent(4) > 50
    for bits in (8, 4):  # what it does not name, codes and positions, makes the rest
        parts, whole = seed_quant.seed_layout().set_index("part").bytes, layout.layout_bytes["fp32"]
        positions, codes = parts["position table, FP32"], parts["codes, a byte each"]
        rest = positions * (1 - bits / 32) + codes * (1 - bits / 8)
        rest *= 100 / (parts.sum() - whole * bits / 32)
        assert seed_quant.named_percent(bits) + rest == pytest.approx(100)


def test_a_mixture_that_is_int3_everywhere_is_said_to_be():
    schemes = mixed.palette()
    same, other = {"a": schemes["int3"]}, {"a": schemes["int3"], "b": schemes["int4"]}
    row = {"over_int3_added_percent": -1.0, "over_int3_low": -2.0, "over_int3_high": -0.5}
    mix = pd.DataFrame([row])
    assert mixed.kept(same) == "the search keeps int3 everywhere" and mixed.kept(other) == ""
    assert "no mixture better" in mixed.in_words(mix, same)
    assert mixed.in_words(mix, other).endswith(
        "in as many bytes changes int3 by −1.0 % [−2.0, −0.5]"
    )
    assert mixed.over_int3(mix) == (-1.0, (-2.0, -0.5))


def test_the_seeds_rule_is_described(model, ids, scores):
    rule = seed_quant.rule_facts(model)
    assert rule["lowest int8"] in (-127, -126) and rule["lowest int4"] in (-7, -6)
    assert rule["bits of int4"] == 8 and rule["zero-points"] == rule["treated otherwise"] == 0
    assert rule["difference"] == 0
    value, (low, high) = seed_quant.rule_on(model, 4, scores)
    assert low <= value <= high and abs(value) > abs(seed_quant.rule_on(model, 8, scores)[0])


def test_several_models_are_judged_together(scores):
    both = quant_tables.cases({"a": scores, "b": scores}, "int4 g32")
    assert both.model.tolist() == ["a", "b"] and (both.low <= both.high).all()


def test_a_share_of_nothing_decides_nothing():
    table = pd.DataFrame(
        {
            "model": ["1 block", "2 blocks"],
            "bits": [4, 2],
            "low": [0, 0],
            "high": [1, 1],
            "recovered_percent": [np.nan, 60.0],
            "recovered_low": [np.nan, 50.0],
            "recovered_high": [np.nan, 70.0],
        }
    )
    cases = quant_tables.recovery_cases(table)
    assert cases[cases.bits == 2].model.tolist() == ["2 blocks"]
    assert cases.recovered_percent.tolist() == [0, 60] and cases.high.tolist()[1] == 70
    assert np.isnan(cases.low[0])
    assert quant_tables.recovered_at(table, 2) == (60, (50, 70))
    assert (
        quant_tables.recovered_at(table, 4) == quant_tables.recovered_at(table, 3) == (None, None)
    )


def test_the_smallest_file_that_surely_costs_little(scores, tmp_path):
    own = Scores(scores.ids, WINDOW)
    own.kept = {"fp32": scores.kept["fp32"], "good": scores.kept["fp32"] + 0.001}
    own.kept["bad"] = scores.kept["fp32"] + 0.1
    sizes = pd.DataFrame({"format": ["fp32", "good", "bad", "bad"], "file_bytes": [9, 5, 2, 2]})
    assert quant_tables.smallest_free(own, sizes).format == "good"
    sizes.to_csv(tmp_path / "bench_quant.csv")
    assert quant_tables.sizes_in(tmp_path).format.tolist() == ["fp32", "good", "bad"]
