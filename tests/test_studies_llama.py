"""llama.cpp runs in a process of its own, which ends whatever its server's destructor does: here a
server that stands in for it, whose destructor never ends."""

import os
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import psutil
import pytest

from minitransformer.model import ModelConfig
from studies import llama, peers, runtimes

STAND_IN = '''
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class CommonParams:
    def __getattr__(self, name):
        setattr(self, name, CommonParams())
        return getattr(self, name)


ggml_type = llama_flash_attn_type = CommonParams()


class Answers(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/sleep":
            time.sleep(3600)
        times = {"prompt_ms": 1.0, "predicted_ms": 2.0}
        told = {"tokens": list(range(asked.get("n_predict", 0))), "timings": times}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    def log_message(self, *_):
        """Says nothing."""


class Server:
    def __init__(self, params):
        name = params.model.path.rpartition("/")[2]
        if name == "broken.gguf":
            raise ValueError("no model\\nin it")
        if name == "slow.gguf":
            time.sleep(3600)
        self.taken = bytearray(b"x" * 2**26)
        server = HTTPServer(("127.0.0.1", 0), Answers)
        self.listening_address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def __del__(self):
        time.sleep(3600)
'''


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    (tmp_path / "xllamacpp.py").write_text(STAND_IN, "utf-8")
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("xllamacpp", None)


def gone(pid, seconds=20):
    """Whether a process ends within so many seconds."""
    until = time.monotonic() + seconds
    while psutil.pid_exists(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not psutil.pid_exists(pid)


def test_a_server_answers_and_ends_though_its_destructor_does_not(stand_in):
    server = llama.Llama("model.gguf")
    assert server.ask("completion", {"n_predict": 3})["tokens"] == [0, 1, 2]
    assert 60 < server.grown() / 2**20 < 80  # the stand-in takes 64 MiB
    server.close()
    assert not psutil.pid_exists(server.process.pid)


def test_one_that_is_forgotten_ends(stand_in):
    pid = llama.Llama("model.gguf").process.pid
    assert not psutil.pid_exists(pid)


def test_one_whose_asker_dies_ends_without_its_destructor(stand_in, tmp_path):
    code = "import os; from studies.llama import Llama; server = Llama('model.gguf')\n"
    code += "print(server.process.pid, flush=True); os._exit(1)"
    where = os.pathsep.join((str(tmp_path), str(Path(llama.__file__).parents[1])))
    command, own = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": where}
    done = subprocess.run(command, env=own, stdout=subprocess.PIPE, text=True, timeout=60)
    assert gone(int(done.stdout))


def test_what_goes_wrong_is_told_in_one_line(stand_in, monkeypatch):
    with pytest.raises(RuntimeError, match="^llama.cpp: no model in it$"):
        llama.Llama("broken.gguf")
    server = llama.Llama("model.gguf")
    monkeypatch.setattr(llama, "SECONDS", 0.2)
    with pytest.raises(RuntimeError, match=r"^llama.cpp gives no answer in 0.2 s: timed out$"):
        server.ask("sleep", {})
    with pytest.raises(RuntimeError, match=r"^llama.cpp has .* not started within 0.2 s$"):
        llama.Llama("slow.gguf")


def test_many_log_probabilities_come_in_several_answers(monkeypatch):
    class Server:
        grown, asked, made = None, [], 99

        def ask(self, way, what):
            self.asked.append(what)
            left = self.made + 2 - len(what["prompt"])
            made, told = range(min(what["n_predict"], left)), what.get("n_probs", 0)
            tops = [{"id": i, "logprob": -float(i)} for i in range(told)]
            found = {"tokens": [len(what["prompt"]) + i for i in made]}
            found["completion_probabilities"] = [{"top_logprobs": tops} for _ in made]
            return found | {"timings": {"prompt_ms": 1000, "predicted_ms": 500}}

    monkeypatch.setattr(runtimes, "Llama", lambda path: Server())
    monkeypatch.setattr(runtimes, "ANSWER", 10)
    run, seen = runtimes.llama("model.gguf", [7, 7], told=4), []
    assert run(5) == ([2, 3, 4, 5, 6], 1.5) and len(Server.asked) == 1
    assert run(5, seen) == ([2, 3, 4, 5, 6], 4.5)
    assert [len(step) for step in seen] == [4] * 5
    monkeypatch.setattr(Server, "made", 1)
    with pytest.raises(RuntimeError, match="^llama.cpp wrote 1 tokens of 5$"):
        run(5)
    assert Server.asked[2]["prompt"] == [7, 7, 2, 3] and Server.asked[3]["n_predict"] == 1


def test_an_end_of_text_is_a_token_like_another_and_no_prompt_is_read_twice(monkeypatch):
    text, end, prompt = [5, 3, 6, 3, 3, 8], 3, [7, 7]

    class Server:
        grown = None

        def ask(self, way, what):
            at, tokens = len(what["prompt"]) - len(prompt), []
            while len(tokens) < what["n_predict"] and (not tokens or tokens[-1] != end):
                token = text[at + len(tokens)]
                tokens.append(9 if what.get("ignore_eos") and token == end else token)
            read = 1 if what["cache_prompt"] else len(what["prompt"])
            tops = [{"top_logprobs": [{"id": token, "logprob": 0.0}]} for token in tokens]
            found = {"tokens": tokens, "completion_probabilities": tops}
            return found | {"timings": {"prompt_ms": 1e3 * read, "predicted_ms": 0}}

    monkeypatch.setattr(runtimes, "Llama", lambda path: Server())
    run, seen = runtimes.llama("model.gguf", prompt), []
    assert run(6, seen) == (text, 2 + 3)  # the prompt, then one token after each end
    assert [[*step] for step in seen] == [[token] for token in text]


def test_the_study_goes_on(stand_in, tmp_path, monkeypatch):
    tiny = ModelConfig(64, 32, 1, 2, norm="rmsnorm", ffn="swiglu", bias=False)
    monkeypatch.setitem(peers.SHAPES, "tiny", tiny)
    found = peers.measure(tmp_path / "peers", ["tiny"], 6, 1, 0, only=["llama.cpp"])
    told = found["told"].set_index("runtime")
    for kind in ("F32", "Q8_0", "Q4_0"):
        assert told.tokens[f"llama.cpp, {kind}"] == "[0, 1, 2, 3, 4, 5]"
        assert 60 < told.mib[f"llama.cpp, {kind}"] < 90  # of the server's own process
    own = found["peers"][found["peers"].name.str.startswith("llama.cpp")]
    assert np.allclose(own.seconds, 3e-3) and len(own) == 6  # as the server states them
    assert active_children() == []


def test_memory_that_is_taken_is_seen():
    before = llama.held()
    taken = np.ones(64 * 2**17)  # 64 MiB, too large for what lies about
    assert 60 < (llama.held() - before) / 2**20 < 80 and taken.size
