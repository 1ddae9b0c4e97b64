"""Numbers are written for reading, and those of one kind with one count of decimals."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper.display import joined
from paper.marks import written
from paper.numerals import column, heading, number, readable, told, unbroken


def test_numbers_are_written_for_reading():
    nothing = [None, float("nan"), pd.NA]
    assert [number(v) for v in nothing] == ["–"] * 3
    assert [number(v) for v in (True, np.bool_(False), 3, np.int64(-1234567))] == [
        "yes",
        "no",
        "3",
        "−1,234,567",
    ]
    assert [number(v) for v in (1e-6, -2.5e12, 12.3456, 0.0)] == [
        "1.0·10⁻⁶",
        "−2.5·10¹²",
        "12.35",
        "0.0",
    ]
    assert [number(v) for v in (-np.inf, np.inf)] == ["−∞", "∞"]
    assert number(0.00123, 2) == "0.0012"
    assert column([0.5, 12.0, np.nan, 0]) == ["0.5", "12.0", "–", "0.0"]
    assert column([np.nan]) == ["–"] and column([]) == []
    assert column([5.0, 5.0, 1e-9]) == ["5.00", "5.00", "0.00"]
    assert column([5.0, 5.0, 1e-9], ratios=True) == ["5.00", "5.00", "1.0·10⁻⁹"]
    assert column([1004.0, 31.84, 24.83], ratios=True) == ["1,004.0", "31.8", "24.8"]
    table = readable(
        pd.DataFrame(
            {"n": [1000, 2], "x": [1.5, 1004.25], "s": ["a", "b"], "ok": [True, False]},
            index=["r", "s"],
        )
    )
    assert table.to_dict("list") == {
        "n": ["1,000", "2"],
        "x": ["1.5", "1,004.2"],
        "s": ["a", "b"],
        "ok": ["yes", "no"],
    }
    assert list(table.index) == ["r", "s"]


def test_what_fewer_decimals_write_in_full_has_no_zeros_behind_it():
    table = readable(pd.DataFrame({"lr": [0.012, 0.006, 0.003], "printed": [7.18, 1052.43, 0.7]}))
    assert table.to_dict("list") == {
        "lr": ["0.012", "0.006", "0.003"],
        "printed": ["7.18", "1,052.43", "0.70"],
    }


def test_columns_of_one_unit_have_one_count_of_decimals_but_where_two_digits_need_more():
    table = readable(
        pd.DataFrame(
            {
                "one_nats": [3.574, 3.672],
                "two_nats": [0.0905, 0.0878],
                "small_nats": [0.00031, 0.00042],
                "none_nats": [0.0, np.nan],
                "times": [12.346, 1.5],
            }
        )
    )
    assert table.to_dict("list") == {
        "one_nats": ["3.574", "3.672"],
        "two_nats": ["0.090", "0.088"],
        "small_nats": ["0.00031", "0.00042"],
        "none_nats": ["0.000", "–"],
        "times": ["12.3", "1.50"],
    }


def test_a_sentence_has_true_minus_signs_and_none_before_zero():
    values = {"a": -1.25, "b": np.float32(-0.5), "c": -0.001, "name": "a-b", "n": -3, "e": 1.5e-7}
    assert told("{a:.1f} {b:+.1f} {n:,}", values) == "−1.2 −0.5 −3"
    assert told("{c:.1f} {c:+.2f} {name} {e:.1e}", values) == "0.0 0.00 a-b 1.5·10⁻⁷"
    assert told("no {values} at all", {}) == "no {values} at all"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("< 5 % of them", "<_5_% of them"),
        ("≥ −128, in 35 µs or 2 s", "≥_−128, in 35_µs or 2_s"),
        ("x = .5 KiB", "x =_.5_KiB"),
        ("50 steps, 3 sheep", "50 steps, 3 sheep"),
        ("a < b", "a < b"),
        ("6 × 384 and 0.83 M", "6_×_384 and 0.83_M"),
        ("1.5× 3 times, 4 Models", "1.5× 3 times, 4 Models"),
    ],
)
def test_a_number_stays_with_its_sign_and_its_unit(text, kept):
    assert unbroken(text) == kept.replace("_", "\u202f")


def test_what_rounds_to_zero_has_no_sign():
    assert column([-0.0, 12.5]) == ["0.0", "12.5"] and number(-0.0) == "0.0"
    assert column([-0.004, 0.1], intervals=[(0, 0.2)]) == ["0.00", "0.10"]


def test_a_value_that_its_interval_would_write_as_zero_keeps_its_side():
    assert written(-0.0498, "nats", (-0.885, 0.786)) == "−0.05\u202fnats"
    assert written(0.0, "", (-0.885, 0.786)) == "0.0" and written(0.4, "", (-88, 90)) == "0.4"
    assert written(-0.0498, "", (-0.06, -0.04)) == "−0.050"


VALUES = st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=12)


@given(VALUES, st.booleans())
def test_numbers_of_one_column_have_one_count_of_decimals_and_never_many_digits(values, ratios):
    texts = column(values, ratios=ratios)
    assert max(len(text.partition(".")[2].partition("·")[0]) for text in texts) <= 7
    if any("·" in text for text in texts):
        return  # powers of ten, where plain decimals would not be read
    places = [len(text.partition(".")[2]) for text in texts]
    for value, count in zip(values, places, strict=True):
        assert count == min(places) or ratios and abs(value) < 0.5 * 10.0 ** -min(places)
    largest = texts[int(np.argmax(np.abs(values)))]
    digits = largest.replace(".", "").replace(",", "").lstrip("−0")
    assert ratios or "." not in largest or len(digits) <= 4  # three, or 9.999 as 10.00


@given(VALUES, st.floats(1e-6, 1e3))
def test_no_number_has_more_decimals_than_its_interval_supports(values, half):
    texts = column(values, intervals=[(v - half, v + half) for v in values])
    places = [len(text.partition(".")[2]) for text in texts if "·" not in text]
    assert not places or max(places) == 0 or 10.0 ** -max(places) >= 0.009 * 2 * half


def test_a_column_with_powers_of_ten_writes_every_small_number_with_one():
    found = column([2.3e-5, 0.0003529, -0.0042, 0.0123, 0.0], 4, count=8)
    assert found == ["2.3·10⁻⁵", "3.5·10⁻⁴", "−4.2·10⁻³", "0.01230", "0"]


def test_what_is_so_many_times_another_has_three_digits_everywhere():
    found = readable(
        pd.DataFrame({"roofline": [1.834, 16.07, 38.516], "times_smaller": [3.907] * 3})
    )
    assert found.roofline.tolist() == ["1.83", "16.1", "38.5"]
    assert found.times_smaller.tolist() == ["3.91"] * 3
    assert written(38.516, "×") == "38.5×" and written(3.6130, "×") == "3.61×"


def test_percentages_have_three_digits_and_those_far_apart_three_each():
    near = readable(pd.DataFrame({"rounded_percent": [1.0604, 5.1492, 29.9901]}))
    assert near.iloc[:, 0].tolist() == ["1.06", "5.15", "29.99"]
    far = readable(pd.DataFrame({"added_percent": [0.0, 0.00086, 1.48146, 133.909, np.nan]}))
    assert far.iloc[:, 0].tolist() == ["0.0", "0.001", "1.48", "133.9", "–"]


def test_counts_among_floats_have_no_decimals_and_settings_are_written_as_they_are():
    counts = readable(pd.DataFrame({"int8, tokens/s": [535.0, 22666.0, np.nan], "n": [1, 2, 3]}))
    assert counts["int8, tokens/s"].tolist() == ["535", "22,666", "–"]
    setting = pd.DataFrame({"this run": [1100, 0.006, 0.0, False, "Adam", None]}, dtype=object)
    expected = ["1,100", "0.006", "0", "no", "Adam", "–"]
    assert readable(setting)["this run"].tolist() == expected


def test_columns_are_headed_in_words():
    heads = {"speedup": "speed-up", "measured_speedup": "measured speed-up", "nbytes": "bytes"}
    assert {name: heading(name) for name in heads} == heads
    assert heading("step_ms") == "step, ms" and heading("us_per_token") == "µs per token"


def test_an_interval_shows_no_more_than_those_beside_it_and_none_of_rounding_alone():
    rows = {
        "ratio": [0.39812, 0.57811, 2.03823, 1004.0],
        "low": [0.383, 0.568, 2.0366, 1004.0 - 1e-9],
        "high": [0.413, 0.590, 2.0398, 1004.0 + 1e-9],
    }
    found = joined(pd.DataFrame(rows)).ratio.tolist()
    assert found == [
        "0.398 [0.383, 0.413]",
        "0.578 [0.568, 0.590]",
        "2.038 [2.037, 2.040]",
        "1,004",
    ]
    alone = pd.DataFrame({"value": [503.04, 239.4], "low": [np.nan, 118], "high": [np.nan, 361]})
    assert joined(alone).value.tolist() == ["503", "239 [118, 361]"]
