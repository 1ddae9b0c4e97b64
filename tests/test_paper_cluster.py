"""A Dask cluster that does not answer, goes, or has no worker is one line, soon; a lost worker's
task runs again. With the package itself where it is installed, else with what stands for it."""

import sys
import time
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest

from paper import __main__ as command
from paper import cluster, sweep, targets
from paper.files import write_text
from paper.parameters import ParameterError

ADDRESS = "tcp://127.0.0.1:9"  # the port of `discard`, where nobody listens


class Future:
    def __init__(self, value=None, error=None):
        self.value, self.error = value, error

    def exception(self):
        if isinstance(self.error, CancelledError):
            raise self.error
        return self.error

    def result(self):
        return self.value


class Client:
    """A cluster whose futures have ended, or none does; with so many looks at `workers`."""

    workers, futures, refused = (), (), None

    def __init__(self, address, timeout):
        assert timeout == cluster.ANSWER_S
        if self.refused:
            raise self.refused
        self.left, self.looks = list(self.futures), list(self.workers)

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        return None

    def submit(self, call, *arguments, pure):
        return self.left.pop(0) if self.left else Future(call(*arguments))

    def scheduler_info(self):
        return {"workers": self.looks.pop(0) if self.looks else {}}


def wait(futures, timeout, return_when):
    ended = [future for future in futures if future.value is not None or future.error]
    if not ended:
        raise TimeoutError
    return SimpleNamespace(done=ended[:1])


def standing(monkeypatch, **known):
    client = type("Client", (Client,), known)
    looks, clock = iter(range(99)), iter(range(99))

    def waited(*given, **options):
        next(looks)  # so that a wait without an end is none
        return wait(*given, **options)

    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=client, wait=waited))
    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: 10 * next(clock)))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            OSError(f"Timed out trying to connect to {ADDRESS} after 15 s"),
            RuntimeError,
            f"the scheduler {ADDRESS} does not answer within 15 s: start it with dask scheduler, "
            "give its address, or leave SCHEDULER out; nothing was begun",
        ),
        (
            ValueError("missing port\nnumber"),
            ParameterError,
            f"SCHEDULER={ADDRESS} is no address (missing port number): give tcp://host:port",
        ),
    ],
)
def test_a_scheduler_that_does_not_answer_is_one_line(monkeypatch, error, kind, message):
    standing(monkeypatch, refused=error)
    with pytest.raises(kind) as caught:
        list(cluster.results(ADDRESS, str, {"a": ("1",)}))
    assert str(caught.value) == message


def test_a_call_that_fails_is_told_and_the_others_go_on(monkeypatch):
    standing(monkeypatch, futures=[Future(error=OSError("killed\nthere")), Future("fine")])
    found = list(cluster.results(ADDRESS, str, {"a": (1,), "b": (2,), "c": (3,)}))
    assert found == [("a", "OSError: killed there"), ("b", "fine"), ("c", "3")]


@pytest.mark.parametrize("workers", [(), ({"one": 1}, {"one": 1}, {"one": 1})])
def test_a_cluster_without_workers_is_given_up_after_a_while(monkeypatch, workers):
    standing(monkeypatch, futures=[Future("fine"), Future()], workers=workers)
    found = cluster.results(ADDRESS, str, {"a": (1,), "b": (2,)})
    assert next(found) == ("a", "fine")
    with pytest.raises(RuntimeError) as caught:
        next(found)
    assert str(caught.value) == (
        f"the scheduler {ADDRESS} has had no worker for 60 s: start some with dask worker "
        f"{ADDRESS}; {cluster.KEPT}"
    )


@pytest.mark.parametrize("error", [CancelledError(), OSError("connection closed")])
def test_a_scheduler_that_goes_is_one_line(monkeypatch, error):
    standing(monkeypatch, futures=[Future("fine"), Future(error=CancelledError())])
    if isinstance(error, OSError):
        client = sys.modules["distributed"].Client
        monkeypatch.setattr(client, "futures", [Future("fine"), Future()])
        monkeypatch.setattr(client, "scheduler_info", lambda self: (_ for _ in ()).throw(error))
    found = cluster.results(ADDRESS, str, {"a": (1,), "b": (2,)})
    assert next(found) == ("a", "fine")
    with pytest.raises(
        RuntimeError, match=f"^the scheduler {ADDRESS} went away: .*; {cluster.KEPT}$"
    ):
        next(found)


def test_the_command_says_it_in_a_line_and_leaves_what_was_there(project, monkeypatch, capsys):
    def attempt(words, root, tell=None):
        return "" if command.main([*map(str, words[3:])]) == 0 else "failed"

    monkeypatch.setattr(sweep, "attempt", attempt)
    monkeypatch.setattr(targets, "cores", lambda: 1)
    grid = write_text(project.root / "grid.yaml", "profile: quick\nseed: [3, 4]\n")
    words = ["sweep", "--grid", str(grid)]
    assert command.main(words) == 0
    table = project.reports / "sweep-grid" / "sweep.csv"
    before = table.read_bytes()
    standing(monkeypatch, refused=OSError("no"))
    capsys.readouterr()
    assert command.main([*words, "--scheduler", ADDRESS]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(f"error: the scheduler {ADDRESS} does not answer within 15 s: ")
    assert table.read_bytes() == before


@pytest.fixture
def dask(monkeypatch):
    return pytest.importorskip("distributed", reason="the extra scale is not installed")


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        (ADDRESS, RuntimeError, "does not answer within 1 s"),
        ("127.0.0.1:9", RuntimeError, "does not answer within 1 s"),
        ("ftp://127.0.0.1:9", ParameterError, r"is no address \(unknown address scheme"),
        ("here", ParameterError, r"is no address \(missing port number"),
    ],
)
def test_dask_tells_who_does_not_answer(dask, monkeypatch, address, kind, message):
    monkeypatch.setattr(cluster, "ANSWER_S", 1)
    began = time.monotonic()
    with pytest.raises(kind, match=message):
        list(cluster.results(address, str, {"a": (1,)}))
    assert time.monotonic() - began < 30


def test_dask_runs_a_lost_workers_task_again_and_names_one_that_fails(dask, tmp_path):
    mark = tmp_path / "mark"
    once = (
        f"import os, pathlib\nmark = pathlib.Path({str(mark)!r})\nif not mark.exists():\n"
        "    mark.touch()\n    os.kill(os.getppid(), 9)"
    )
    scripts = {"lost": once, "bad": "import sys; sys.exit('it broke')"}
    calls = {name: ((sys.executable, "-c", text), str(tmp_path)) for name, text in scripts.items()}
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with dask.LocalCluster(2, **options) as workers:
        found = dict(cluster.results(workers.scheduler_address, sweep.attempt, calls))
    assert found == {"lost": "", "bad": "it broke"} and mark.exists()


def test_dask_without_workers_is_given_up(dask, monkeypatch):
    monkeypatch.setattr(cluster, "WORKER_S", 2)
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": None}
    with (
        dask.LocalCluster(n_workers=0, **options) as empty,
        pytest.raises(RuntimeError, match="has had no worker for 2 s: start some with dask worker"),
    ):
        list(cluster.results(empty.scheduler_address, str, {"a": (1,)}))


def test_dask_waits_for_workers_that_are_busy(dask, monkeypatch):
    monkeypatch.setattr(cluster, "WORKER_S", 1)
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": None}
    with dask.LocalCluster(1, **options) as busy:
        found = list(cluster.results(busy.scheduler_address, time.sleep, {"a": (4,)}))
    assert found == [("a", None)]
