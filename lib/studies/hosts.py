"""JavaScript hosts that models run in: node, and a Chromium without a window.

Both run hosts.mjs and answer one question at a time. Neither outlives this process, for each reads
from a pipe that ends with it. What a page may fetch is named beforehand, and comes from 127.0.0.1.
"""

import json
import queue
import shutil
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SCRIPT = Path(__file__).with_suffix(".mjs")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# --enable-unsafe-webgpu: without a GPU, WebGPU on a software adapter.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-webgpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
KINDS = {".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html"}
SECONDS = 120  # for one answer
PAGE = b'<!doctype html><script>new Worker("/hosts.mjs", { type: "module" })</script>'


class HostError(RuntimeError):
    """A host that is not there, does not answer, or answers with an error; one line."""


class Node:
    """The program `node`; a path is one of this machine."""

    def __init__(self):
        program = shutil.which("node")
        if not program:
            raise HostError("node is not installed: apt install nodejs")
        command = [program, str(SCRIPT)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def place(self, path: Path) -> str:
        return str(Path(path).resolve())

    def ask(self, **question) -> dict:
        """What the host answers; HostError with what it says where it fails."""
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError as error:
            raise HostError(f"node has ended: {error}") from error
        if not line:
            said = self.process.stderr.read().strip().splitlines()
            raise HostError(f"node has ended: {next(iter(said), 'it says nothing')}")
        return checked(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(SECONDS)
        self.process.stdout.close()
        self.process.stderr.close()


class Browser:
    """A page in Chromium; `place` makes a file or folder one that the page may fetch."""

    def __init__(self):
        program = next(filter(None, map(shutil.which, BROWSERS)), None)
        if not program:
            raise HostError("chromium is not installed: apt install chromium")
        self.files, self.lost = {"/hosts.mjs": SCRIPT}, ""
        self.questions, self.answers = queue.Queue(), queue.Queue()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = [*FLAGS, f"--user-data-dir={self.profile.name}", "--remote-debugging-pipe"]
        address = f"http://127.0.0.1:{self.server.server_port}/"
        # Chromium ends when descriptor 3, our pipe, does.
        shell = ["sh", "-c", 'exec "$@" 3<&0 4>/dev/null', "sh", program, *flags, address]
        none = subprocess.DEVNULL
        self.process = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=none, stderr=none)
        self._answer()  # it is there

    def place(self, path: Path) -> str:
        path = Path(path).resolve()
        if path not in self.files.values():
            self.files[f"/{len(self.files)}/{path.name}"] = path
        return next(name for name, there in self.files.items() if there == path)

    def found(self, name: str) -> Path | None:
        """The file behind an address: one that was placed, or directly in a folder that was."""
        folder, _, file = name.rpartition("/")
        path = self.files.get(name) or (folder in self.files and self.files[folder] / file)
        return path if path and path.is_file() else None

    def ask(self, **question) -> dict:
        """What the page answers; HostError with what it says where it fails. A page that was silent
        once, as one that crashed is, is asked no more."""
        if self.lost:
            raise HostError(self.lost)
        self.questions.put(json.dumps(question))
        return checked(self._answer())

    def _answer(self) -> str:
        try:
            return self.answers.get(timeout=SECONDS)
        except queue.Empty:
            self.lost = f"chromium gave no answer within {SECONDS} s"
            raise HostError(self.lost) from None

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.server.shutdown()
        self.server.server_close()
        self.profile.cleanup()


def checked(line: str) -> dict:
    told = json.loads(line)
    if "error" in told:
        raise HostError(told["error"])
    return told


def handler(browser: Browser) -> type:
    """Answers of the server: files by GET; POST /next brings an answer and takes a question."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/":
                self._send(200, "text/html", PAGE)
            elif path := browser.found(self.path):
                kind = KINDS.get(path.suffix, "application/octet-stream")
                self._send(200, kind, path.read_bytes())
            else:
                self._send(404, "text/plain", b"")

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            browser.answers.put(body)
            self._send(200, "application/json", browser.questions.get().encode())

        def _send(self, status, kind, body):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Says nothing."""

    return Handler
