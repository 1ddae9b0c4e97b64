"""Whole files only."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from paper import files


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = files.write_text(tmp_path / "new" / "a.txt", "old\n")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "new\n")
    assert path.read_text() == "old\n" and os.listdir(path.parent) == ["a.txt"]


def test_files_are_readable_by_everyone_so_that_packs_are_equal(tmp_path):
    assert files.write_bytes(tmp_path / "a", b"x").stat().st_mode & 0o777 == 0o644


def test_json_takes_numpy_and_paths_and_refuses_nan_and_objects(tmp_path):
    value = {"n": np.float64(1.5), "a": np.arange(2), "p": tmp_path / "x", "ñ": "ñ"}
    assert files.read_json(files.write_json(tmp_path / "v.json", value)) == {
        "n": 1.5,
        "a": [0, 1],
        "p": (tmp_path / "x").as_posix(),
        "ñ": "ñ",
    }
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "v.json", float("nan"))
    with pytest.raises(TypeError, match="does not fit into JSON"):
        files.write_json(tmp_path / "v.json", object())


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert (
        files.digest({"a": 1, "b": 2})
        == files.digest({"b": 2, "a": 1})
        != files.digest({"a": 1, "b": 3})
    )


def test_the_tree_is_sorted_and_leaves_hidden_files_out(tmp_path):
    for name in ("b.txt", "a/z.txt", ".x/y.txt", ".part"):
        files.write_text(tmp_path / name, name)
    assert [p.relative_to(tmp_path).as_posix() for p in files.tree(tmp_path)] == [
        "a/z.txt",
        "b.txt",
    ]


def test_sha256_is_that_of_the_bytes(tmp_path):
    assert files.sha256(files.write_bytes(tmp_path / "abc", b"abc")).startswith("ba7816bf8f01cfea")


def test_a_lock_lets_one_in_at_a_time(tmp_path):
    inside = []

    def work(name):
        with files.locked(tmp_path / "run"):
            inside.append(("in", name))
            time.sleep(0.05)
            inside.append(("out", name))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert [a[0] for a in inside] == ["in", "out"] * 3 and all(
        inside[i][1] == inside[i + 1][1] for i in (0, 2, 4)
    )
