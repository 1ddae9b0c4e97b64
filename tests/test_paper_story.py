"""The figures that chapters share and those of the story: each is drawn from the table of its
study, with its axes named and its labels apart."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from paper import figures
from paper.boxes import overlaps
from paper.canvas import PALETTE
from report import plots, resources, story
from report.headline import Fact

SYSTEMS = ["2-gram (best on validation)", "1-block model", "2-block model", "smeared 1-block model"]


def table(names, first, value="nats", **more):
    """A row a name: a value and an interval about it, and other columns."""
    values = np.linspace(0.2, 1.4, len(names))
    ends = {"low": values - 0.05, "high": values + 0.05}
    return pd.DataFrame({first: names, value: values} | ends | more)


def long(value, x="x", names=SYSTEMS, group="system", points=(1, 10, 100)):
    """As `table`, a row a name and a place."""
    parts = [table(list(names), group, value).assign(**{x: place}) for place in points]
    return pd.concat(parts, ignore_index=True)


LOST = long("excess_nats", "kind", points=("free", "offset", "induction"))
LOST = LOST.assign(floor_nats=3.0, share_percent=20.0)
LADDER = table(SYSTEMS, "system", "perplexity").sort_values("perplexity", ascending=False)
EFFECTS = table(["2 blocks", "width 64", "multi-query"], "change", "difference_nats")
COSTS = table(["64", "128", "256"], "what", "difference_nats", step_ms=[3.0, 8.0, 20.0])
GAINS = pd.DataFrame({"new_tokens": [10, 50, 500], "measured": [1.0, 1.5, 3.8]})
GAINS = GAINS.assign(low=GAINS.measured - 0.1, high=GAINS.measured + 0.1)
GAINS = GAINS.assign(roofline=[2.0, 5.0, 50.0], time_model=GAINS.measured * 1.1)
QUANT = table(["fp32", "int8", "int4"], "format", "added_percent", file_kib=[1800.0, 460.0, 260.0])
QUANT = QUANT.assign(compared=True)
FALL = pd.DataFrame({"step": ["no cache", "a cache", "in C"], "us_per_token": [900.0, 400, 40]})
GRID = pd.DataFrame(np.eye(3) * 90, index=["01 a", "02 b", "03 c"], columns=["01", "02", "03"])
STATEMENTS = pd.DataFrame({"id": ["a", "b"], "kind": "setting", "verdict": ["copied", "copied"]})
MARKS = table(["1 × 128", "6 × 384"], "shape", "over_least").assign(format="native FP32")
MARKS = MARKS.rename(columns={"low": "over_least_low", "high": "over_least_high"})
ROWS = pd.concat([MARKS.assign(rows=n) for n in (1, 8)], ignore_index=True)
SPEEDS = table(["PyTorch", "C engine"], "runtime", "per_second").assign(format="FP32", cache="int8")
USE = pd.DataFrame({"tokens": [16, 512, 8192] * 2, "heads": ["MHA"] * 3 + ["MQA"] * 3})
USE = USE.assign(format="FP32", paged_kib=USE.tokens * 1.0, static_kib=8192.0)
LOOPS = long("speedup", "new_tokens", ["dynamic cache", "static cache"], "loop", (10, 50, 500))
IN_C = LOOPS.assign(loop=LOOPS.loop.replace("static cache", "engine, static cache"))
WORTH = LOOPS.rename(columns={"speedup": "ms_per_token"})
SECONDS = long("valid_nats", "seconds", group="who")
SECONDS["whole_nats"] = (SECONDS.valid_nats + 0.1).where(SECONDS.seconds == 100)
DRAWN = {
    "frequencies": (plots.frequencies, long("share_percent", "rank", "ab", "corpus"), "word"),
    "ladder": (plots.ladder, LADDER, "word", [(0.1, "floor")]),
    "learning": (plots.learning, long("valid_nats", "tokens", group="model"), [(1.5, "a guess")]),
    "mechanisms": (plots.mechanisms, long("excess_nats", "tokens", ["offset"], "mechanism")),
    "losses": (plots.losses, LOST, "nats"),
    "by context": (plots.by_context, long("loss_nats", "position"), "word", [], 10),
    "by window": (plots.by_window, long("nats", "evaluated_window", group="positions"), [], 10),
    "calibration": (plots.calibration, long("accuracy", "confidence", points=(0.1, 0.5))),
    "heads": (plots.heads, GRID),
    "attention": (plots.attention, GRID),
    "changes": (plots.changes, EFFECTS),
    "added": (plots.added, table(["int8", "int4"], "format", "added_nats")),
    "costs": (plots.costs, COSTS, "step_ms", "time of a step, ms"),
    "above the source": (plots.above_source, long("excess_nats", "tokens", group="what")),
    "by seconds": (plots.by_seconds, SECONDS, [(1.0, "3-gram")]),
    "budget": (plots.budget, LOST, "word"),
    "by window, long": (plots.by_window, long("nats", "evaluated_window", group="positions")),
    "endless": (plots.endless, long("excess_nats", "tokens", ["a", "b"], "cache"), 20, 60),
    "quality of formats": (plots.quality, QUANT.assign(label=QUANT.format), {"int8": "plum"}),
    "own quality": (plots.own_quality, QUANT.assign(mib=QUANT.file_kib / 1024)),
    "reserved": (resources.reserved, USE),
    "waste": (resources.waste, long("reserved_share", "tokens", ["static", "paged"], "cache")),
    "growth": (resources.growth, long("process_kib", "tokens", ["static", "paged"], "cache")),
    "forwards": (resources.forwards, long("estimate", "tokens", ["a", "b"], "phase"), [], 12),
    "speedups": (resources.speedups, LOOPS, [(1.0, "roofline")], 1.95, 25),
    "worth": (resources.worth, WORTH, [(([10, 500], [40.0, 20.0]), "at the peak")]),
    "waterfall": (resources.waterfall, FALL),
    "serving": (resources.serving, long("tokens_per_s", "load", ["a", "b"], "policy", (0.3, 1.2))),
    "steps": (resources.steps, table(["a", "b"], "how", "step_us", file_kib=[9.0, 40.0])),
    "peers": (resources.peers, table(["a", "b"], "runtime", "us_per_token")),
    "runtimes": (resources.runtimes, table(["b", "a"], "row", "tokens_per_second")),
    "ways": (resources.ways, SPEEDS),
    "over the mark": (resources.over_mark, MARKS),
    "rows": (resources.rows, ROWS, [1, 8]),
    "layers": (resources.layers, long("us", "width", ["FP32", "int8"], "format"), [1, 100]),
    "story ladder": (story.ladder, LADDER, Fact(0.1)),
    "story mechanisms": (story.mechanisms, LOST),
    "speed-up": (story.speed_up, story.gains(GAINS, IN_C), 1.95),
    "speed-up without an engine": (story.speed_up, story.gains(GAINS, pd.DataFrame()), 1.95),
    "quality": (story.quality, QUANT),
    "speed": (story.speed, FALL),
    "audit": (story.audit, STATEMENTS),
}


@pytest.mark.parametrize("name", DRAWN)
def test_it_is_drawn_from_the_table_of_its_study(name):
    draw, *given = DRAWN[name]
    fig = draw(*given)
    fig.canvas.draw()
    assert len(fig.alt) > 20 and not overlaps(fig) and fig.data is given[0]
    (ax, *_) = fig.axes
    assert name == "audit" or (ax.get_xlabel() and "_" not in ax.get_xlabel() + ax.get_ylabel())


def test_what_was_before_the_first_token_is_kept_and_not_drawn():
    looks = table(["first", "then"], "model", "valid_nats").assign(model="a", tokens=[0, 10])
    later = looks.assign(tokens=[100, 1000])
    fig = plots.learning(pd.concat([looks, later], ignore_index=True))
    assert fig.axes[0].lines[0].get_xdata().tolist() == [10, 100, 1000] and len(fig.data) == 4


def test_a_mark_stands_where_its_column_has_a_number_in_the_colour_of_its_line():
    fig = plots.by_seconds(SECONDS[SECONDS.who.isin(SYSTEMS[:1])], [])
    line, mark = fig.axes[0].lines[:2]
    assert mark.get_ydata()[-1] == pytest.approx(0.3) and np.isnan(mark.get_ydata()[:-1]).all()
    assert mark.get_markeredgecolor() == line.get_color() and mark.get_linestyle() == "None"
    assert fig.alt.endswith("from 0.200 at 1 to 0.200 at 100, a mark at 0.3000.")


def test_matrices_are_drawn_with_their_numbers():
    bare, full = figures.heatmap(GRID, label="dB"), plots.numbers(GRID, "dB")
    assert len(full.findobj(Text)) > len(bare.findobj(Text)) and full.alt == bare.alt
    assert "Matrix of times as fast as FP32, width." in resources.kernels({"1 token": GRID}).alt


def test_a_loss_is_above_the_oracle_where_there_is_one():
    labels = [plots.budget(LOST.assign(floor_nats=x), "word").axes[0].get_xlabel() for x in (3, 0)]
    assert labels == ["loss above the oracle, nats per word", "loss, nats per word"]


def test_the_architecture_is_drawn_from_its_parts():
    part = {"part": "attention", "does": "looks", "leaves": "B, T, C", "parameters": 8}
    fig = story.architecture(
        pd.DataFrame([part | {"group": "", "joins": False}]), "1 block", "8 KiB"
    )
    assert "attention (looks), 8 parameters, leaves B, T, C" in fig.alt and "8 KiB" in fig.alt


def test_two_figures_of_the_story_stand_beside_each_other():
    assert story.ladder(LADDER).get_figwidth() < plots.ladder(LADDER, "word").get_figwidth()


def test_a_system_has_one_colour_in_every_figure_of_its_losses():
    for fig in (plots.losses(LOST, "nats"), story.mechanisms(LOST)):
        fig.canvas.draw()
        faces = {to_hex(patch.get_facecolor()) for ax in fig.axes for patch in ax.patches}
        assert {PALETTE[name][0] for name in plots.COLOURS[: len(SYSTEMS)]} <= faces


LINES = {
    "encodings": (plots.by_window, [], "nats", "evaluated_window", "positions", plots.ENCODINGS),
    "formats": (resources.layers, [[1, 100]], "us", "width", "format", resources.FORMATS),
    "loops": (resources.speedups, [[], 2, 25], "speedup", "new_tokens", "loop", resources.LOOPS),
}


@pytest.mark.parametrize("name", LINES)
def test_a_series_has_one_colour_whichever_row_comes_first(name):
    draw, more, value, x, group, wanted = LINES[name]
    for names in (list(wanted), list(wanted)[::-1]):
        fig = draw(long(value, x, names, group), *more)
        fig.canvas.draw()
        found = {text.get_text(): text.get_color() for text in fig.findobj(Text)}
        assert {it: found[it] for it in names} == {it: PALETTE[wanted[it]][1] for it in names}


def test_what_is_above_a_floor_is_called_so_only_where_there_is_one():
    above, plain = story.mechanisms(LOST), story.mechanisms(LOST.assign(floor_nats=0.0))
    assert above.axes[0].get_xlabel() == "nats per token above the floor"
    assert plain.axes[0].get_xlabel() == "nats per token"


def test_the_kind_on_which_the_model_loses_most_is_told_with_its_share():
    kinds = {"kind": ["a", "b*"] * 2, "system": ["gram"] * 2 + ["model"] * 2}
    lost = pd.DataFrame(kinds | {"excess_nats": [9, 1, 1, 4.5], "share_percent": [50, 50, 60, 40]})
    told = story.largest(lost)
    assert told["share"] == pytest.approx(100 * 180 / 240) and "b" in told["kind"]
    assert told["kind"] != "b*"  # a user's word stands as it is in Markdown


def test_the_engine_is_told_at_the_longest_length_that_was_timed():
    rows = {"loop": ["native FP32", "eager", "native FP32"], "new_tokens": [50, 500, 500]}
    native = pd.DataFrame(
        rows | {"over_eager": [20.0, 1, 23], "low": [19.0, 1, 18], "high": [21.0, 1, 30]}
    )
    told = story.engine(native)
    assert told["n"] == 500 and f"{told['gain']}" == "23× [18, 30]"
    single = native.assign(low=np.nan, high=np.nan)  # of one process
    assert story.engine(single)["gain"].interval is None
