"""Building the engine: once, atomically, with one line where it cannot be; and under sanitizers."""

import importlib.util
import logging.handlers
import multiprocessing
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import minitransformer
from minitransformer.native import BuildError, __main__
from minitransformer.native import build as module
from minitransformer.native.build import build, compiler
from native_models import BUILT, needs_compiler

ROOT = Path(__file__).resolve().parent.parent
HERE = {**os.environ, "PYTHONPATH": str(Path(minitransformer.__file__).parent.parent)}
SMALL = ("-O0", "-DPORTABLE")  # what builds fastest


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in (*words, "backend 'eager'"))
    assert error.value.__cause__ is None and (
        error.value.__context__ is None or error.value.__suppress_context__
    )


@pytest.mark.parametrize("cc", ["/bin/false", "/nowhere/cc", "cc -no-such-flag", sys.executable])
def test_a_compiler_that_does_not_work_is_one_line(cc, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", cc)
    with pytest.raises(BuildError) as error:
        build(place=tmp_path)
    one_line(error, cc.split()[0], "apt-get install gcc")
    assert list(tmp_path.iterdir()) == []


def test_no_compiler_is_one_line(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BuildError) as error:
        compiler()
    one_line(error, "no C compiler", "ziglang")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name == "ziglang")
    assert compiler() == [sys.executable, "-m", "ziglang", "cc"]


@pytest.mark.skipif(not importlib.util.find_spec("ziglang"), reason="ziglang is not installed")
@pytest.mark.parametrize("variant", module.VARIANTS)
def test_zig_takes_the_flags_where_there_is_nothing_else(variant, monkeypatch):
    """Linking is left out: zig first compiles a runtime of its own, for a minute."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    command, said = module.settle(variant)
    assert command[1:4] == ["-m", "ziglang", "cc"] and "__clang__" in said


def test_the_extra_is_what_the_remedy_names():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert extras["optional-dependencies"]["compiler"] == ["ziglang"]
    assert "[compiler]" in module.REMEDY and "pip install ziglang" in module.REMEDY
    assert "ziglang" not in (ROOT / "requirements.lock").read_text("utf-8")


def test_setup_compiles_ahead(tmp_path):
    done = subprocess.run(
        ["make", "-n", "setup", f"VENV={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert "-m minitransformer.native" in done.stdout, done.stderr


def test_importing_builds_nothing():
    code = "import minitransformer.native, sys; sys.exit('torch' not in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={**HERE, "CC": "/bin/false"})
    assert done.returncode == 0


FORCED = {  # -march=native comes behind: macros are taken away where no flag would last
    "portable": ("-DPORTABLE", {"PORTABLE"}, set()),
    "avx2": (
        "-U__AVX512VNNI__ -U__AVXVNNI__",
        {"__AVX2__"} if BUILT in ("avx2", "vnni") else set(),
        {"__AVX512VNNI__", "__AVXVNNI__"},
    ),
}


@needs_compiler
@pytest.mark.parametrize("instructions", FORCED)
def test_the_compilers_command_forces_what_a_whole_run_of_the_tests_multiplies_by(
    instructions, monkeypatch
):
    """As the Makefile says beside `test`: there every test is one of that variant."""
    flags, defined, gone = FORCED[instructions]
    monkeypatch.setenv("CC", f"{shlex.join(compiler())} {flags}")
    macros = {line.split()[1] for line in module.settle("native")[1].splitlines()}
    assert defined <= macros and not gone & macros
    assert flags in (ROOT / "Makefile").read_text("utf-8")


@needs_compiler
def test_a_source_that_does_not_compile_is_one_line(monkeypatch, tmp_path):
    broken = tmp_path / "engine.c"
    broken.write_text("int f(void) { return nothing; }\n")
    monkeypatch.setattr(module, "SOURCE", broken)
    with pytest.raises(BuildError) as error:
        build(extra=SMALL, place=tmp_path)
    one_line(error, "cannot build the engine", "nothing")
    assert list(tmp_path.iterdir()) == [broken]


def built(place):
    """In a process of its own: the library's path, and what was said of it."""
    said = logging.handlers.BufferingHandler(99)
    module.log.addHandler(said)
    module.log.setLevel("INFO")
    path = build(extra=SMALL, place=place)
    return path, [record.getMessage() for record in said.buffer]


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a new process would import torch")
def test_two_processes_build_one_library(tmp_path, monkeypatch):
    """Of a source that is compiled at once: what counts is who wins."""
    (tmp_path / "engine.c").write_text("int answer(void) { return 42; }\n")
    monkeypatch.setattr(module, "SOURCE", tmp_path / "engine.c")
    place = tmp_path / "kept"
    place.mkdir()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        (path, said), (other, more) = pool.map(built, [place] * 2, chunksize=1)
    assert [*place.iterdir()] == [path] == [other]
    assert said + more and all("compiling the C engine" in line for line in said + more)
    before = path.stat().st_mtime_ns
    assert build(extra=SMALL, place=place).stat().st_mtime_ns == before  # not built again
    assert build(extra=(*SMALL, "-g"), place=place) != path


def ahead(cc, home):
    env = {**HERE, "HOME": str(home)} | ({"CC": cc} if cc else {})
    command = [sys.executable, "-m", "minitransformer.native"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_building_ahead_of_time_never_fails(tmp_path):
    code, lines = ahead("/bin/false", tmp_path)
    assert code == 0 and len(lines) == 1 and "backend 'eager'" in lines[0]


@needs_compiler
def test_building_ahead_of_time_is_said_once(tmp_path):
    code, lines = ahead(None, tmp_path)
    assert code == 0 and len(lines) == 1 and "compiling the C engine" in lines[0]
    assert ahead(None, tmp_path) == (0, [])


def test_what_cannot_be_built_is_said(monkeypatch, caplog):
    def refuse(*_):
        raise BuildError("no compiler")

    monkeypatch.setattr(__main__, "library", refuse)
    monkeypatch.setattr(__main__.wasm, "write", refuse)
    assert [__main__.main(words) for words in ([], ["--wasm"], ["--required"])] == [0, 1, 1]
    with pytest.raises(SystemExit, match="2"):  # nothing is built for a word that is none
        __main__.main(["--wasn"])
    told = [record.getMessage() for record in caplog.records]
    lacking = "the C engine is not built: no compiler"
    assert told == [lacking, "error: no compiler", lacking]


@needs_compiler
def test_a_place_that_takes_no_engine_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"file takes no engine \(Not a directory\): free some sp"):
        build(place=tmp_path / "file")


@needs_compiler
def test_no_sanitizer_complains(tmp_path):
    """Addresses and undefined behaviour, in every format, cache and choice, and in calls that are
    mostly wrong."""
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g0")
    try:
        built = build(extra=flags, place=tmp_path)
    except BuildError as error:
        pytest.skip(f"no sanitizers: {error}")
    asked = [*compiler(), "-print-file-name=libasan.so"]
    asan = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    if not Path(asan).is_absolute():
        pytest.skip("no libasan.so to preload")
    env = {**HERE, "LD_PRELOAD": asan, "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "1"}
    here = Path(__file__).parent
    for script, *arguments in (
        ("native_sanitized.py", str(built)),
        ("native_random.py", "1500", "5", str(built)),
    ):
        command = [sys.executable, str(here / script), *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.split()[0] in ("clean", "1500")
