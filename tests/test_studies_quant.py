"""The experiments of the quantization chapter, at tiny size: known answers and invariants."""

import numpy as np
import pandas as pd
import pytest
import torch

from minitransformer.checkpoint import save
from minitransformer.model import ModelConfig, Transformer
from minitransformer.train import initialize
from studies import calibration, finetune, formats, kernels, mixed, seed_quant
from studies.scores import Scores

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


def test_three_counts_of_bytes_agree_and_the_seeds_model_is_as_small_as_known(model):
    table = formats.sizes(formats.made(model, ["fp32", "int8 channel", "int4 g32 asym", "nf4 g64"]))
    assert formats.agreeing(table) == 4 and table.times_smaller[0] == 1
    table.loc[1, "resident_bytes"] += 1
    assert formats.agreeing(table) == 3
    ratios = formats.default_ratios().set_index("format").times
    assert ratios["int8 channel"] == pytest.approx(3.85, abs=0.01)
    assert ratios["int4 g32"] == pytest.approx(6.78, abs=0.01)
    assert formats.round_trips().back_exactly.all()
    assert formats.packed_bits() == 4.5


def test_errors_follow_the_step_and_codes_the_rule(model):
    names = ["int8 channel", "int4 channel"]
    errors = formats.matrix_errors(model, formats.made(model, names))
    assert formats.snr_grid(errors).shape == (len(errors) // 2, 2)
    assert formats.off_the_step(errors) < 2
    ranges = formats.code_ranges(model).set_index("bits")
    assert (ranges.lowest[8], ranges.highest[8], ranges.codes[4]) == (-127, 127, 16)
    assert formats.centres(model).abs().max() < 0.5
    layout = formats.seed_layout()
    assert layout.share_percent.sum() == pytest.approx(100)
    assert layout.set_index("part").bytes["position table, FP32"] == 4 * 512 * 128


def test_zero_points_are_compared_with_both_symmetric_rules(model, scores):
    table = formats.zero_points(model, scores).set_index("format")
    gap = scores.added("int2 g32 asym", "int2 g32")["added_percent"]
    assert table.gap_percent["int2 g32"] == gap and table.more_bytes_percent["int2 g32"] > 0
    assert abs(table.gap_percent["int8 channel"]) < abs(table.gap_percent["int2 g32"])


def test_methods_are_compared_in_one_format_and_chosen_on_validation(model, ids, scores):
    fitting = calibration.windows(ids, 200, WINDOW)
    assert fitting.shape == (6, WINDOW)
    table, models = calibration.compare("one", model, scores, [4, 2], fitting, ids[400:500])
    assert len(table) == 8 and table[table.method == "rtn"].recovered_percent.abs().max() < 1e-9
    pick = calibration.chosen(table)
    assert pick.bits.tolist() == [2, 4] and "rtn" not in set(pick.method)
    for row in pick.itertuples():
        rivals = table[(table.bits == row.bits) & (table.method != "rtn")]
        assert row.validation_nats == rivals.validation_nats.min()
    grid = calibration.output_errors(model, models, 2, calibration.windows(ids, 64, WINDOW))
    assert (grid["GPTQ"] < grid["rounded"]).mean() > 0.5
    parts = calibration.embedding_alone(model, scores, 2, fitting)
    assert parts.format.tolist() == ["embedding, clipped", "rest, rounded", "rest, GPTQ"]
    table = calibration.activations(model, scores, fitting)
    assert table.activations_added_percent.abs().max() < 1 and (table.times_smaller > 3).all()
    assert (calibration.outliers(model, fitting) >= 1).all()


def test_fine_tunes_learn_from_their_control_and_pack_exactly(model, ids, scores, tmp_path):
    plan = finetune.Plan(2, 2, WINDOW, 3e-3, 1e-3, 1)
    ticks = []
    tuned = finetune.fine_tunes(model, ids, [4, 2], plan, done=ticks.append)
    assert len(ticks) == 6 and set(tuned) == {"control", 4, 2}
    assert finetune.exact_logits(tuned, torch.from_numpy(ids[:WINDOW].copy())[None]) == (2, 2)
    table = finetune.over_control("one", tuned, scores)
    assert table.bits.tolist() == [4, 2] and (table.low <= table.added_percent).all()
    finetune.keep(tuned, tmp_path / "qat")
    back = finetune.kept(tmp_path / "qat", [2, 4])
    assert list(back) == ["control", 4, 2]
    probe = torch.from_numpy(ids[:WINDOW].copy())[None]
    assert torch.equal(back[4][1](probe), tuned[4][1](probe))
    told = finetune.teachers("one", model, tuned, ids, plan, scores)
    assert len(told) == 3 and np.isnan(told.teacher_added_percent[0])
    grown, curves = finetune.from_scratch(CFG, ids, plan, scores)
    assert grown.bits.tolist() == [4, 2] and set(curves.run) == {"control", "int4", "int2"}
    assert finetune.uniform_nats(CFG) == pytest.approx(np.log(41))


def test_a_mixture_keeps_its_limit_and_its_file(model, ids, scores, tmp_path):
    table, alone = mixed.felt(model, ids[400:500], WINDOW)
    assert mixed.grid(table).shape[1] == 3
    found, schemes = mixed.under_budgets(model, alone, ids[400:500], scores)
    assert (found.bytes <= found.limit_bytes).all()
    scheme = schemes["int3 bytes"]
    assert mixed.file_round_trip(tmp_path / "s.json", scheme, CFG)
    assert set(mixed.spent(scheme).format) <= set(mixed.palette())


def test_every_way_to_run_is_timed_beside_fp32(model, tmp_path, scores):
    for name in ("model", "model-control"):
        save(model, tmp_path / name)
    samples = {n: t.assign(process=0) for n, t in kernels.measure(tmp_path, 2, 0).items()}
    ways, checked, refused = kernels.running(model)
    assert set(samples["steps"].name) == set(ways)
    theirs = kernels.measure_seed(tmp_path, 2)
    theirs = {name: table.assign(process=0) for name, table in theirs.items()}
    table = seed_quant.table(model, np.arange(300) % 41, theirs["seed"]).set_index("format")
    assert table.layout_mib["fp32"] == pytest.approx(1.99, abs=0.005)
    assert table.layout_mib["int8"] == pytest.approx(1.06, abs=0.005)
    assert table.added_percent["fp32"] == 0 and table.time_ratio["fp32"] == pytest.approx(1)
    assert set(theirs["heads"].name) == {"symmetric", "zero-points"}
    assert seed_quant.dequantizing_cost(theirs["seed"])["estimate"] > 0
    assert all(error < 0.05 for _, error, _ in checked)
    assert kernels.worst_error(checked) == max(error for _, error, _ in checked)
    sizes = formats.sizes(formats.made(model, ["fp32", *kernels.SUITS]))
    table = kernels.step_table(samples["steps"], ways, sizes).set_index("how")
    assert table.label["fp32"] == "baseline" and table.time_ratio["fp32"] == pytest.approx(1)
    assert set(table.label[table.kernel == "dequantized"]) == {"FP32-resident"}
    assert "not decided" in set(table.label) and "fast" not in set(table.label)
    costs = kernels.kernel_costs(ways, scores)
    assert costs["fp32"] == 0 and set(costs.index) == set(ways)


def test_products_are_named_by_their_quickest_fp32_among_them():
    table = kernels.products([32], 2, 0)
    best = kernels.quickest(table)
    assert set(best.memory) == {"any", "within 1.1 of disk"} and len(best) == 4
    ran = table[(table.label != "refused") & (table.kernel != "dequantized") & (table.tokens == 1)]
    own = best[(best.tokens == 1) & (best.memory == "any")].iloc[0]
    assert own.median_us == ran.median_us.min()
    assert set(kernels.grids(table)) == {"1 token", "64 tokens"}


def test_the_seeds_drops_belong_to_one_baseline_that_it_does_not_report():
    assert seed_quant.implied_baselines().tolist() == [1052.43, 1052.43]
    assert seed_quant.own_differences().tolist() == [7.18, 9.44]
    assert seed_quant.verdict_below(0.1, 0.2, 1) == "reproduced"
    assert seed_quant.verdict_below(0.1, 2.0, 1) == "corrected"
    assert seed_quant.verdict_below(1.1, 2.0, 1) == "refuted"


def test_several_models_are_judged_together(scores):
    both = seed_quant.cases({"a": scores, "b": scores}, "int4 g32")
    assert both.model.tolist() == ["a", "b"] and (both.low <= both.high).all()
    assert seed_quant.total(iter([(1, 2), (3, 3)])) == (4, 5)
    table = pd.DataFrame({"low": [0], "high": [1], "recovered_low": [2], "recovered_high": [3]})
    assert seed_quant.recovery_cases(table).to_dict("records") == [{"low": 2, "high": 3}]
