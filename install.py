"""Makes the project's environment: `python install.py`, on any system. `make setup` calls it.

It needs only the standard library, and no more than Python 3.6 to say which Python is needed. It
creates .venv, takes torch from PyTorch's index of CPU wheels where that is the smaller download
(Linux), then everything else from requirements.lock, then this project itself. A line says what is
going on: rewritten in place on a terminal, elsewhere a new one every 20 seconds.
"""

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST, NEWEST = (3, 11), (3, 14)  # for which every pinned package has wheels
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE = 5  # seconds until an index that does not answer is done without
EVERY = 20  # seconds between lines without a terminal


class SetupError(Exception):
    """One line that names the thing, the value and the remedy."""


def refusal(version=sys.version_info, system=sys.platform, machine=None):
    """Why this interpreter cannot run the project, with the remedy; None if it can."""
    given = f"{sys.executable} is Python {version[0]}.{version[1]}"
    oldest, newest = (".".join(map(str, v)) for v in (OLDEST, NEWEST))
    if tuple(version[:2]) < OLDEST:
        return f"Python {oldest} or newer is needed, and {given}: give one, as in PYTHON=python3.12"
    if tuple(version[:2]) > NEWEST:
        return (
            f"{given}, and onnxruntime has no wheel newer than Python {newest}: "
            f"give {oldest} to {newest}, as in PYTHON=python3.12"
        )
    if system == "darwin" and (machine or platform.machine()) == "x86_64":
        return (
            "torch has no wheel for Macs with an Intel processor: use Linux, or a Mac with Apple's"
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        return (
            f"{given} without venv, which Debian and Ubuntu ship apart: "
            "sudo apt install python3-venv, and run the same command again"
        )
    return None


def interpreter(venv):
    """The environment's Python, whether or not it is there yet."""
    return venv.absolute() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def packages(venv):
    """The folder of the environment's packages."""
    version = "python{}.{}".format(*sys.version_info)
    return venv / ("Lib" if os.name == "nt" else f"lib/{version}") / "site-packages"


def create(venv):
    """An environment of this interpreter at `venv`; one of another Python there is replaced."""
    ask = [str(interpreter(venv)), "-c", "import pip, sys; print(*sys.version_info[:2])"]
    try:
        found = subprocess.run(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    except OSError:
        found = b""
    if found.decode().split() == [str(n) for n in sys.version_info[:2]]:
        return
    if venv.is_dir() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").is_file():
        raise SetupError(f"{venv} is a folder and no environment: give another, as in VENV=.venv")
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(venv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise SetupError(f"{venv} could not be made: {' '.join(done.stdout.decode().split())}")


def silence(index):
    """Why `index` does not list torch within a few seconds; None if it does."""
    found = [f"no answer in {PATIENCE} s"]

    def ask():
        try:
            with urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=PATIENCE) as page:
                found[0] = None if b"torch-" in page.read() else "it lists no torch"
        except Exception as error:
            found[0] = str(error).strip("<>")

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name has no time limit
    asking.start()
    asking.join(PATIENCE + 1)
    return found[0]


def torch_index(wanted, system=sys.platform):
    """The index that torch is taken from; "" for pip's own. SetupError: the one asked for is
    silent."""
    if wanted == "none" or (wanted in ("", "auto") and not system.startswith("linux")):
        return ""
    index = CPU_INDEX if wanted in ("", "auto") else wanted
    reason = silence(index)
    if reason is None:
        return index
    if index == wanted:
        raise SetupError(
            f"TORCH_INDEX={wanted} cannot be used ({reason}): check it, or give TORCH_INDEX=none"
        )
    print(
        f"note: {index} cannot be reached ({reason}): torch comes from pip's own index, "
        "which on x86-64 adds 2.2 GB of CUDA libraries",
        flush=True,
    )
    return ""


def file_name(path):
    """A wheel's name and version, without its folder and tags."""
    return "-".join(path.rpartition("/")[2].split("-")[:2])


class Progress:
    """What pip is doing, told by its own lines."""

    def __init__(self, site, total):
        self.site, self.total, self.started = site, total, time.monotonic()
        self.seen, self.doing, self.installing = 0, "asking for its list", 0
        self.before = self.installed()

    def installed(self):
        return len(list(self.site.glob("*.dist-info")))

    def read(self, line):
        """Takes a line of pip's output."""
        words = line.split()
        if line.startswith("Ignoring "):  # not for this system, or not for this Python
            self.total -= 1
        elif words[:1] in (["Collecting"], ["Processing"], ["Requirement"]):
            self.seen += "(from -r " in line
            self.doing = file_name(words[3] if words[0] == "Requirement" else words[1])
        elif words[:1] == ["Downloading"]:
            self.doing = f"downloading {file_name(words[1])} {' '.join(words[2:])}"
        elif line.startswith("Installing collected packages: "):
            self.installing = len(words) - 3

    def __str__(self):
        seconds = f"{time.monotonic() - self.started:.0f} s"
        if self.installing:
            return f"  {seconds}: {self.installed() - self.before} of {self.installing} installed"
        return f"  {seconds}: package {self.seen} of {self.total}, {self.doing}"


def watch(lines, progress, out=sys.stdout):
    """Prints `progress` while `lines` come, and returns them."""
    terminal, done, kept = out.isatty(), threading.Event(), []

    def tell():
        while not done.wait(0.5 if terminal else EVERY):
            out.write(f"\r\033[K{str(progress)[:78]}" if terminal else f"{progress}\n")
            out.flush()

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    try:
        for line in lines:
            progress.read(line)
            kept.append(line)
    finally:
        done.set()
        telling.join()
        if terminal:
            out.write("\r\033[K")
    return kept


def pip(venv, arguments, total=1):
    """Runs the environment's `pip install`; SetupError, after what pip said, if it fails."""
    command = [str(interpreter(venv)), "-m", "pip", "install", "--progress-bar=off", "--no-color"]
    command += ["--disable-pip-version-check", "--no-input", *arguments]
    running = subprocess.Popen(
        command,
        cwd=str(ROOT),
        env=dict(os.environ, PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        errors="replace",
    )
    try:
        said = watch(running.stdout, Progress(packages(venv), total))
    except BaseException:
        running.terminate()
        raise
    finally:
        code = running.wait()
    if code:
        sys.stderr.write("".join(said[-12:]))
        raise SetupError(
            f"pip could not install {arguments[-1]} (above): mend that, or connect to the network, "
            "and run the same command again: what was downloaded is kept"
        )


def setup(venv, wanted):
    """Creates or completes the environment at `venv`."""
    why_not = refusal()
    if why_not:
        raise SetupError(why_not)
    started, lock = time.monotonic(), ROOT / "requirements.lock"
    pins = [line for line in lock.read_text().splitlines() if "==" in line]
    print(f"setting up {venv}: at most {len(pins)} packages, some minutes", flush=True)
    create(venv)
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    there = any(packages(venv).glob(f"{torch.replace('==', '-')}*.dist-info"))
    index = "" if there else torch_index(wanted)
    if index:
        print(f"torch from {index}", flush=True)
        pip(venv, ["--no-deps", "--index-url", index, torch])
    # As constraints too: else pip tries newer ones of what another package asks for by an extra.
    pip(venv, ["-c", "requirements.lock", "-r", "requirements.lock"], len(pins))
    pip(venv, ["--no-deps", "--no-build-isolation", "-e", "."])
    (venv / ".installed").touch()
    print(f"{venv} is ready after {time.monotonic() - started:.0f} s", flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description="Make the project's environment.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder (default: .venv)")
    parser.add_argument(
        "--torch-index",
        default="auto",
        metavar="URL",
        help="index for torch; none: pip's own (default: that of CPU wheels on Linux)",
    )
    options = parser.parse_args(argv)
    try:
        setup(options.venv, options.torch_index)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
