"""Named corpora without a checkout, and servers and disks that fail: one line, nothing
half-written."""

import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest

import minitransformer
from minitransformer.corpus import catalogue, check_corpus, registry, text_corpus
from minitransformer.corpus.registry import downloads, obtain, on_disk

TEXT = ("En un lugar de la Mancha, de cuyo nombre no quiero acordarme.\n" * 40).encode()
SHA = hashlib.sha256(TEXT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """A path is a way to fail."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        getattr(self, self.path.strip("/"))()

    def reply(self, body: bytes, length: int | None = None, code: int = 200, **headers):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def good(self):
        self.reply(TEXT)

    def moved(self):
        self.reply(b"", code=302, Location="/good")

    def loop(self):
        self.reply(b"", code=302, Location="/loop")

    def to_a_file(self):
        self.reply(b"", code=302, Location="file:///etc/hostname")

    def nowhere(self):
        self.reply(b"", code=301, Location="/missing")

    def missing(self):
        self.reply(b"no such page", code=404)

    def forbidden(self):
        self.reply(b"", code=403)

    def busy(self):
        self.reply(b"", code=503)

    def cut(self):
        self.reply(TEXT[:500], length=len(TEXT))

    def empty(self):
        self.reply(b"")

    def page(self):
        self.reply(b"<html>please log in</html>" * 50)

    def endless(self):
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(TEXT)
        except OSError:
            pass

    def silent(self):
        time.sleep(3)

    def crawling(self):
        self.send_response(200)
        self.end_headers()
        try:
            for byte in TEXT[:200]:
                self.wfile.write(bytes([byte]))
                time.sleep(0.02)
        except OSError:
            pass

    def nonsense(self):
        self.wfile.write(b"HTTP/9.9 what\r\n\r\n")

    def closed(self):
        self.close_connection = True


@pytest.fixture(scope="module")
def server():
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()


def entries(url: str) -> dict:
    file = dict(split="all", path="sub/book.txt", url=url, sha256=SHA, bytes=len(TEXT))
    return {"book": dict(title="A Book", source="a server", licence="none", files=[file])}


@pytest.mark.parametrize("page", ["good", "moved"])
def test_a_good_reply_is_kept_whole(server, tmp_path, page):
    found = obtain("book", entries(f"{server}/{page}")["book"], None, tmp_path)
    assert found["all"].read_bytes() == TEXT
    assert [p.name for p in tmp_path.rglob("*.*")] == ["book.txt"]


@pytest.mark.parametrize(
    "page, message",
    [
        ("loop", "HTTP Error 302|infinite loop"),
        ("to_a_file", "HTTP Error 302|not allowed"),
        ("nowhere", "HTTP Error 404"),
        ("missing", "HTTP Error 404"),
        ("forbidden", "HTTP Error 403"),
        ("busy", "HTTP Error 503"),
        ("cut", "ended after 500 of 2,480 bytes"),
        ("empty", r"has sha256 e3b0c442.* \(0 bytes\)"),
        ("page", "expected"),
        ("endless", r"longer than 4,960 bytes"),
        ("silent", "timed out"),
        ("crawling", r"only \d+ bytes came in"),
        ("nonsense", "could not be downloaded"),
        ("closed", "could not be downloaded"),
    ],
)
def test_a_bad_reply_is_one_line_and_leaves_nothing(server, tmp_path, monkeypatch, page, message):
    monkeypatch.setattr(registry, "SILENCE", 0.5)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        text_corpus("book", download_dir=tmp_path, entries=entries(f"{server}/{page}"))
    line = str(error.value)
    assert "\n" not in line and f"{server}/{page}" in line and "CORPORA_DIR" in line
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://no.such.host.invalid/x"])
def test_no_server_is_one_line(tmp_path, url):
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as error:
        text_corpus("book", download_dir=tmp_path, entries=entries(url))
    assert "\n" not in str(error.value) and not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("step", ["mkdir", "write_bytes", "replace"])
def test_a_full_disk_is_one_line_and_leaves_nothing(server, tmp_path, monkeypatch, step):
    def full(self, *_, **__):
        if step == "write_bytes":
            self.touch()  # begun, so there is something to remove
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(os if step == "replace" else Path, step, full)
    with pytest.raises(OSError, match=r"cannot be written to .* \(No space left on device\)") as e:
        obtain("book", entries(f"{server}/good")["book"], None, tmp_path)
    assert "\n" not in str(e.value) and "CORPORA_DIR" in str(e.value)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.*"))


def test_a_file_that_was_there_survives_a_bad_download(server, tmp_path):
    """The second of two splits fails: the first stays, whole."""
    two = entries(f"{server}/good")["book"]["files"] + entries(f"{server}/cut")["book"]["files"]
    two[0] |= dict(split="train", path="train.txt")
    two[1] |= dict(split="test", path="test.txt")
    with pytest.raises(FileNotFoundError, match="ended after"):
        obtain("book", dict(files=two), None, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["train.txt"]
    assert set(on_disk(dict(files=two), None, tmp_path)) == {"train"}


def test_a_check_downloads_nothing(tmp_path):
    assert (
        check_corpus("book", entries=entries("http://127.0.0.1:9/x"), download_dir=tmp_path) is None
    )
    with pytest.raises(ValueError, match="tokenizer 'words' is unknown"):
        check_corpus("book", "words", entries=entries("-"), download_dir=tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "book.txt").write_bytes(TEXT)
    found = check_corpus("book", entries=entries("-"), download_dir=tmp_path)
    assert found.name == "book" and found.tokens["train"] > 1000


def test_the_package_knows_the_corpora_without_a_checkout(tmp_path):
    """A copy of the package alone, as a wheel installs it."""
    site = tmp_path / "site-packages"
    shutil.copytree(
        Path(minitransformer.__file__).parent,
        site / "minitransformer",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    program = (
        "from minitransformer.corpus import catalogue, registry\n"
        f"assert registry.__file__.startswith({str(site)!r})\n"
        "print(*catalogue(), registry.downloads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(site), "HOME": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *names, folder = done.stdout.split()
    assert names == list(catalogue())
    assert Path(folder) == tmp_path / ".cache" / "minitransformer"


def test_the_registry_is_package_data():
    root = Path(minitransformer.__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert "**/*.toml" in project["tool"]["setuptools"]["package-data"]["minitransformer"]
    assert downloads() == root / "data"
