"""install.py: what it refuses, where it takes torch from, and that it is never silent."""

import ast
import http.server
import importlib.util
import io
import os
import socket
import sys
import threading
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
install = importlib.util.module_from_spec(spec)
spec.loader.exec_module(install)

BACKEND = """import zipfile
def build_editable(directory, config_settings=None, metadata_directory=None):
    name, info = "mini-1-py3-none-any.whl", "mini-1.dist-info"
    with zipfile.ZipFile(directory + "/" + name, "w") as wheel:
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: mini\\nVersion: 1\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return name
"""


@pytest.fixture
def served(tmp_path):
    """An index of a folder's files, and the folder."""
    folder = tmp_path / "index"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def write_torch(folder):
    """A wheel of nothing that is called torch 2.13.0+cpu, and the page that lists it."""
    name, info = "torch-2.13.0+cpu-py3-none-any.whl", "torch-2.13.0+cpu.dist-info"
    (folder / "torch").mkdir()
    with zipfile.ZipFile(folder / "torch" / name, "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cpu\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    (folder / "torch" / "index.html").write_text(f'<a href="{name}">{name}</a>')


@pytest.mark.parametrize(
    "version, system, machine, said",
    [
        (
            (3, 10),
            "linux",
            "x86_64",
            "Python 3.11 or newer is needed, and {} is Python 3.10: give one",
        ),
        ((3, 15), "linux", "x86_64", "no wheel newer than Python 3.14: give 3.11 to 3.14"),
        ((3, 12), "darwin", "x86_64", "no wheel for Macs with an Intel processor"),
        ((3, 11), "linux", "aarch64", None),
        ((3, 14), "darwin", "arm64", None),
        ((3, 13), "win32", "AMD64", None),
    ],
)
def test_an_interpreter_without_wheels_is_refused_by_name(version, system, machine, said):
    found = install.refusal((*version, 0), system, machine)
    assert said is None and found is None or said.format(sys.executable) in found


def test_a_python_without_venv_is_told_its_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "ensurepip" or None)
    assert "sudo apt install python3-venv" in install.refusal((3, 12, 0), "linux", "x86_64")


def test_the_interpreters_are_those_that_the_package_allows():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = [n for n in range(40) if f"3.{n}.1" in SpecifierSet(asked["requires-python"])]
    assert allowed == list(range(install.OLDEST[1], install.NEWEST[1] + 1))
    assert sys.version_info[1] in allowed


def test_an_old_python_can_read_the_script_that_refuses_it():
    ast.parse((ROOT / "install.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_an_index_answers_or_the_reason_is_given(served, monkeypatch):
    folder, url = served
    assert "404" in install.silence(url)
    (folder / "torch").mkdir()
    (folder / "torch" / "index.html").write_text("<html></html>")
    assert install.silence(url) == "it lists no torch"
    (folder / "torch" / "index.html").write_text('<a href="torch-2.13.0.whl">')
    assert install.silence(f"{url}/") is None
    monkeypatch.setattr(install, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes the call and says nothing
        assert "timed out" in install.silence(f"http://127.0.0.1:{mute.getsockname()[1]}")


def test_a_name_that_is_looked_up_for_ever_does_not_hold_the_setup(monkeypatch):
    monkeypatch.setattr(install, "PATIENCE", -0.9)
    forever = threading.Event()
    monkeypatch.setattr(install.urllib.request, "urlopen", lambda *_, **__: forever.wait())
    assert "no answer in" in install.silence("https://example.org")
    forever.set()


@pytest.mark.parametrize(
    "wanted, system, reason, index",
    [
        ("auto", "linux", None, install.CPU_INDEX),
        ("", "linux", None, install.CPU_INDEX),
        ("auto", "linux", "no route", ""),
        ("auto", "darwin", None, ""),
        ("auto", "win32", None, ""),
        ("none", "linux", None, ""),
        ("https://example.org/cu130", "linux", None, "https://example.org/cu130"),
        ("https://example.org/cu130", "win32", None, "https://example.org/cu130"),
    ],
)
def test_linux_takes_the_cpu_wheels_and_any_system_what_is_asked_for(
    wanted, system, reason, index, monkeypatch, capsys
):
    monkeypatch.setattr(install, "silence", lambda _: reason)
    assert install.torch_index(wanted, system) == index
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (reason is not None) and all("2.2 GB of CUDA" in line for line in lines)


def test_an_index_that_was_asked_for_and_is_silent_is_an_error(monkeypatch):
    monkeypatch.setattr(install, "silence", lambda _: "no route")
    with pytest.raises(
        install.SetupError, match=r"TORCH_INDEX=http://x cannot be used \(no route\)"
    ):
        install.torch_index("http://x", "linux")


def test_progress_is_read_from_what_pip_says(tmp_path):
    progress = install.Progress(tmp_path, 5)
    for line, said in [
        ("Ignoring appnope: markers 'sys_platform == \"darwin\"' don't match", "package 0 of 4"),
        ("Collecting anyio==4.16.0 (from -r requirements.lock (line 3))", "1 of 4, anyio==4.16.0"),
        (
            "  Downloading a/anyio-4.16.0-py3-none-any.whl (134 kB)",
            "downloading anyio-4.16.0 (134 kB)",
        ),
        ("Processing /x/six-1.17.0-py2.py3-none-any.whl (from -r x)", "2 of 4, six-1.17.0"),
        (
            "Requirement already satisfied: torch==2.13.0 in ./x (from -r x)",
            "3 of 4, torch==2.13.0",
        ),
        ("Requirement already satisfied: sympy>=1 in ./x (from torch==2.13.0)", "3 of 4, sympy"),
        ("Installing collected packages: six, anyio", "0 of 2 installed"),
    ]:
        progress.read(line)
        assert said in str(progress)
    (tmp_path / "six-1.17.0.dist-info").mkdir()
    assert "1 of 2 installed" in str(progress)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_silent_pip_is_told_about_line_by_line(terminal, tmp_path, monkeypatch):
    monkeypatch.setattr(install, "EVERY", 0.01)
    out, told = io.StringIO(), threading.Event()
    out.isatty, out.flush = (
        lambda: terminal,
        lambda: out.getvalue().count("asking") > 2 and told.set(),
    )

    def lines():
        assert told.wait(60)
        yield "Collecting a (from -r x)\n"

    assert install.watch(lines(), install.Progress(tmp_path, 9), out) == [
        "Collecting a (from -r x)\n"
    ]
    assert out.getvalue().count("\n") >= 3 * (not terminal)
    assert out.getvalue().startswith("\r" if terminal else "  0 s: package 0 of 9")


def test_without_a_terminal_a_line_comes_at_least_every_half_minute():
    assert install.EVERY <= 30


def test_a_failing_pip_is_quoted_with_the_remedy(tmp_path, monkeypatch, capsys):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho 'ERROR: no matching distribution'; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(install, "create", lambda venv: None)
    monkeypatch.setattr(install, "refusal", lambda: None)
    assert install.main(["--venv", str(tmp_path), "--torch-index", "none"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ERROR: no matching distribution\nerror: pip could not install")
    assert not (tmp_path / ".installed").exists()


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert install.main(["--venv", str(tmp_path)]) == 1
    assert "is a folder and no environment" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "setup", stop)
    assert install.main([]) == 130 and capsys.readouterr().err.strip().count("\n") == 0


def test_an_environment_is_made_with_torch_from_the_index(served, tmp_path, monkeypatch, capfd):
    """The whole of it, with a torch of nothing and a lock that asks for nothing else."""
    folder, url = served
    write_torch(folder)
    project = tmp_path / "a project"
    project.mkdir()
    (project / "requirements.lock").write_text("# a comment\ntorch==2.13.0\n")
    (project / "backend.py").write_text(BACKEND)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(install, "ROOT", project)
    monkeypatch.chdir(tmp_path)
    venv = Path("a project", ".venv")
    assert install.main(["--venv", str(venv), "--torch-index", url]) == 0
    site = install.packages(venv)
    assert (site / "torch-2.13.0+cpu.dist-info").is_dir() and (venv / ".installed").is_file()
    assert f"torch from {url}" in capfd.readouterr().out
    assert (site / "mini-1.dist-info").is_dir()
    monkeypatch.setattr(install, "pip", lambda venv, words, total=1: said.append(words))
    said = []  # torch is there, so no index is asked for it, not even one that would not answer
    assert install.main(["--venv", str(venv), "--torch-index", "http://127.0.0.1:9"]) == 0
    assert [words[-1] for words in said] == ["requirements.lock", "."]
    assert said[0][:2] == ["-c", "requirements.lock"], "an extra would bring newer versions to try"
