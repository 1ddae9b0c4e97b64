"""Chapters side by side: what may run beside what, in which order, and what a failure leaves."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper import schedule
from paper.schedule import Rules, run_all

NAMES = "abcdefg"


@st.composite
def rules(draw):
    """Any order of chapters, each needing some of those before it."""
    count = draw(st.integers(1, len(NAMES)))
    names = NAMES[:count]
    needs = {
        n: tuple(draw(st.sets(st.sampled_from(names[:i])))) if i else ()
        for i, n in enumerate(names)
    }
    timed = draw(st.sets(st.sampled_from(names)))
    return Rules(needs, draw(st.integers(1, 4)), frozenset(timed), draw(st.integers(1, 4)))


def seconds(names):
    return st.fixed_dictionaries({n: st.integers(0, 9).map(float) for n in names})


@settings(deadline=None)
@given(st.data(), rules())
def test_whatever_the_chapters_need_every_one_runs_once_after_it_and_beside_what_it_may(
    data, rules
):
    took = data.draw(seconds(rules.needs))
    current = data.draw(st.sets(st.sampled_from([*rules.needs])))
    started, ended, at_once, lock = [], [], [], threading.Lock()

    def run(stage, beside):
        with lock:
            started.append(stage)
            assert {*rules.needs[stage]} <= {*ended} | current
            now = [s for s in started if s not in ended]
            at_once.append(now)
            assert {*now} <= {stage, *beside}
        with lock:
            ended.append(stage)

    run_all(rules, took, current.__contains__, run)
    assert sorted(ended) == sorted({*rules.needs} - current)
    for now in at_once:
        assert len(now) <= rules.jobs
        assert len(now) <= rules.room or rules.timed.isdisjoint(now) or len(now) == 1


@settings(deadline=None)
@given(st.data(), rules())
def test_the_time_left_is_between_the_longest_chain_and_the_sum(data, rules):
    took = data.draw(seconds(rules.needs))
    total = rules.left([*rules.needs], {}, took)
    chain = {}
    for stage in rules.needs:
        chain[stage] = took[stage] + max((chain[s] for s in rules.needs[stage]), default=0)
    assert max(chain.values()) <= total <= sum(took.values())
    assert total * rules.jobs >= sum(took.values())
    if rules.jobs == 1:
        assert total == sum(took.values())


def test_two_run_at_the_same_time_and_are_told_of_one_another():
    both, told = threading.Barrier(2, timeout=60), {}

    def run(stage, beside):
        if stage in "bc":
            both.wait()  # neither ends before the other has begun
        told[stage] = beside

    needs = {"a": (), "b": ("a",), "c": ("a",), "d": ("a", "b", "c")}
    run_all(Rules(needs, 2), dict.fromkeys(needs), lambda stage: False, run)
    assert told == {"a": [], "b": ["c"], "c": ["b"], "d": []}


def test_a_timed_one_runs_alone_or_among_as_many_as_there_are_cores_for():
    needs = dict.fromkeys("abc", ())
    alone, among = (Rules(needs, 3, frozenset("b"), room) for room in (1, 2))
    assert alone.admit("c", ["a"]) and alone.admit("b", [])
    assert not alone.admit("b", ["a"]) and not alone.admit("a", ["b"])
    assert among.admit("b", ["a"]) and not among.admit("b", ["a", "c"])
    assert not among.admit("c", ["a", "b"])


def test_the_one_that_most_waits_for_starts_first():
    needs = {"a": (), "b": (), "c": (), "d": ("c",)}
    unknown = dict.fromkeys(needs)
    assert Rules(needs).next([*needs], [], unknown) == "c"
    assert Rules(needs).next([*needs], [], dict.fromkeys(needs, 1.0) | {"b": 9.0}) == "b"
    assert Rules(needs).next([*needs], [], dict.fromkeys(needs, 0.0)) == "a"  # else in order
    assert Rules(needs).left([*needs], {}, unknown) is None


def test_after_a_failure_what_runs_ends_and_nothing_more_starts():
    needs, both, ran, heard = dict.fromkeys("abcd", ()), threading.Event(), [], []

    def run(stage, beside):
        if stage == "a":
            raise ValueError("a is bad")
        both.wait(60)
        ran.append(stage)

    def failing(stage, others):
        heard.append((stage, others))
        both.set()

    with pytest.raises(ValueError, match="a is bad"):
        run_all(Rules(needs, 2), dict.fromkeys(needs), lambda _: False, run, failing=failing)
    assert (ran, heard) == (["b"], [("a", ["b"])])


def test_an_interruption_ends_what_runs(monkeypatch):
    """Ctrl-C reaches the thread that waits, whatever the others do."""
    stopped, ran = threading.Event(), []

    def interrupted(*_):
        raise KeyboardInterrupt

    def run(stage, beside):
        assert stopped.wait(60)
        ran.append(stage)
        raise RuntimeError("the kernel died")

    monkeypatch.setattr(schedule, "wait", interrupted)
    needs = dict.fromkeys("abc", ())
    with pytest.raises(KeyboardInterrupt):
        run_all(Rules(needs, 2), dict.fromkeys(needs), lambda _: False, run, stop=stopped.set)
    assert sorted(ran) == ["a", "b"]


def test_the_cores_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(schedule.os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert schedule.cores() == 2
    monkeypatch.delattr(schedule.os, "sched_getaffinity")
    monkeypatch.setattr(schedule.os, "cpu_count", lambda: 6)
    assert schedule.cores() == 6
