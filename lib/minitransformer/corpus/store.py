"""Texts beyond memory: shards of JSONL or plain text, tokenized in parallel into files that are
mapped, not read.

    store.json        the settings, and a row a shard: its name, the SHA-256 of what was read (as it
                      lies on the disk, compressed or not) and of its ids, and how many ids
    tokenizer.json    whose ids they are
    NNNNN.ids         the ids of one shard, little-endian int32
    NNNNN.json        its row, written when it is whole: where a killed build goes on

Nothing is ever whole in memory but a piece of a shard, or one line of JSONL."""

import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ..files import NotJSON, read_json, read_tokenizer, replacing, sha256_of
from .text import shown
from .tokenizers import encode, flowing

try:
    from compression import zstd  # Python 3.14 has it
except ImportError:
    try:
        from backports import zstd  # of the extra `scale`
    except ImportError:
        zstd = None
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, *([zstd.ZstdError] if zstd else []))

FORMAT, IDS = 1, "<i4"
READ = 1 << 20  # characters of a text, bytes of a hash, at once
ROW = ("name", "sha256", "tokens", "ids_sha256")  # of a shard
REMEDY = "give it back as it was, or build the store again in another folder"


class Store:
    """The ids of a store as one row, of which only what is asked for is read.

    `store[a:b]` is an int32 array, mapped from the file where it lies in one shard, so a store goes
    wherever ids do that are read in windows: `Batches(store, …)`. ValueError or FileNotFoundError
    names the shard whose ids are gone or of another length; `verify` reads them all."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        path = self.folder / "store.json"
        if not path.is_file():
            raise FileNotFoundError(f"no store in {shown(folder)}: store.json is missing; build it")
        try:
            self.about, self._arrays = read_json(path), []
            self.shards = [{name: row[name] for name in ROW} for row in self.about["shards"]]
        except (NotJSON, KeyError, TypeError) as error:
            raise ValueError(f"{shown(path)} is no store's ({error!r}): {REMEDY}") from error
        for place, shard in enumerate(self.shards):
            ids = _ids_path(self.folder, place)
            if not ids.is_file():
                raise FileNotFoundError(_named(shard, ids, "is gone"))
            if ids.stat().st_size != 4 * shard["tokens"]:
                raise ValueError(_named(shard, ids, f"is not {4 * shard['tokens']:,} bytes long"))
            full = shard["tokens"] > 0  # nothing cannot be mapped
            self._arrays.append(np.memmap(ids, IDS, "r") if full else np.empty(0, IDS))
        self._ends = np.cumsum([0, *(shard["tokens"] for shard in self.shards)])

    @property
    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self.folder / "tokenizer.json", REMEDY)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, where: slice) -> np.ndarray:
        start, stop, step = where.indices(len(self))
        if step != 1:
            raise ValueError(
                f"a store is read in windows, not in steps of {step}: slice what it is"
            )
        first = max(int(np.searchsorted(self._ends, start, "right")) - 1, 0)
        parts = []
        for ids, end in zip(self._arrays[first:], self._ends[first + 1 :], strict=True):
            begin = end - len(ids)
            if begin >= stop:
                break
            parts.append(ids[max(start - begin, 0) : max(stop - begin, 0)])
        parts = [part for part in parts if len(part)] or [np.empty(0, IDS)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def verify(self) -> None:
        """Reads every id; ValueError names the first shard whose ids are not those of its row."""
        for place, shard in enumerate(self.shards):
            ids = _ids_path(self.folder, place)
            if sha256_of(ids) != shard["ids_sha256"]:
                raise ValueError(_named(shard, ids, "has changed"))


def build(shards: Sequence[Path], folder: Path, tokenizer: Tokenizer, *, workers: int = 1,
          field: str = "text", end: str = "\n",
          done: Callable[[str], None] | None = None) -> Store:  # fmt: skip
    """Tokenize `shards`, in their order, into the store `folder`, in `workers` processes.

    A shard is .jsonl (a document a line, in `field`, each followed by `end`) or a text in UTF-8,
    plain or compressed (.gz, .zst). Its ids are those of `encode` on the whole of it. Shards that
    an earlier build has finished are not tokenized again, if they and the settings are the same;
    `done` is told the name of each that is finished. ValueError or OSError names the shard, the
    place and what is wrong; what is finished is kept."""
    folder, shards = Path(folder), [Path(shard) for shard in shards]
    if not shards:
        raise ValueError("no shards are given: give texts or JSONL files")
    for path in shards:
        see(path)
    settings = {"format": FORMAT, "field": field, "end": end, "tokenizer": tokenizer.to_str()}
    settings["tokenizer"] = hashlib.sha256(settings["tokenizer"].encode()).hexdigest()
    with replacing(folder / "tokenizer.json") as part:
        part.write_text(tokenizer.to_str(pretty=True), "utf-8")
    jobs = [(path, folder, place, settings) for place, path in enumerate(shards)]
    rows = dict(_all(jobs, tokenizer.to_str(), workers, done or (lambda name: None)))
    about = settings | {"shards": [rows[place] for place in range(len(shards))]}
    _write_json(folder / "store.json", about)
    return Store(folder)


def _all(jobs, tokenizer: str, workers: int, done) -> Iterator[tuple[int, dict]]:
    """(place, row) of every shard, as each is finished."""
    if workers <= 1:
        for job in jobs:
            yield job[2], _one(*job, tokenizer)
            done(job[0].name)
        return
    with ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn")) as pool:
        futures = {pool.submit(_one, *job, tokenizer): job for job in jobs}
        try:
            for future in as_completed(futures):
                path, _, place, _ = futures[future]
                yield place, future.result()
                done(path.name)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process that tokenized was ended, probably for want of memory: give fewer "
                "workers, and build again; finished shards are kept"
            ) from error
        finally:
            for future in futures:
                future.cancel()


def _one(path: Path, folder: Path, place: int, settings: dict, tokenizer: str) -> dict:
    """The row of one shard: kept from an earlier build, or made."""
    ids, record = _ids_path(folder, place), folder / f"{place:05d}.json"
    try:
        kept = json.loads(record.read_text("utf-8"))
        same = kept["settings"] == settings and ids.stat().st_size == 4 * kept["row"]["tokens"]
        if same and kept["row"]["sha256"] == sha256_of(path):
            return kept["row"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or not whole: it is made
    for old in (record, folder / "store.json"):  # which tell of other ids
        old.unlink(missing_ok=True)
    codec, made, written, tokens = Tokenizer.from_str(tokenizer), hashlib.sha256(), 0, 0
    with replacing(ids) as part, open(part, "wb") as file, _opened(path) as (stream, source):
        for array in _encoded(path, stream, codec, settings):
            data = array.astype(IDS, copy=False).tobytes()
            file.write(data)
            made.update(data)
            written, tokens = written + len(data), tokens + len(array)
        sha256 = source.whole()
    row = {"name": path.name, "sha256": sha256, "tokens": tokens, "ids_sha256": made.hexdigest()}
    _write_json(record, {"settings": settings, "row": row})
    return row


def _encoded(path: Path, stream, tokenizer, settings: dict) -> Iterator[np.ndarray]:
    """The ids of a shard, piece by piece; ValueError names what of it cannot be read."""
    name = f"shard {shown(path)}"
    if ".jsonl" not in path.suffixes:
        yield from flowing(tokenizer, iter(lambda: stream.read(READ), ""), name)
        return
    for number, line in enumerate(stream, 1):
        if not line.isspace():
            text = document(line, settings["field"], f"{name}, line {number:,},")
            yield encode(tokenizer, text + settings["end"])


def document(line: str, field: str, where: str) -> str:
    """The text of a line of JSONL; ValueError, which begins with `where`, for a line without."""
    try:
        found = json.loads(line)
        text = found.get(field) if isinstance(found, dict) else None
        if isinstance(text, str):
            text.encode()  # half of a character, as \ud83d spells it, has no UTF-8
            return text
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        raise ValueError(f"{where} is not JSON ({reason}): mend it") from error
    raise ValueError(f"{where} has no text under {field!r}: give the field's name")


class _Hashed(io.RawIOBase):
    """A file that is hashed while it is read."""

    def __init__(self, file):
        self.file, self.digest = file, hashlib.sha256()

    def readable(self):
        return True

    def readinto(self, buffer):
        size = self.file.readinto(buffer)
        self.digest.update(memoryview(buffer)[:size])
        return size

    def whole(self) -> str:
        """The SHA-256 of the file, read to its end."""
        while self.read(READ):
            pass
        return self.digest.hexdigest()


@contextmanager
def _opened(path: Path):
    """The text of a shard as a stream, and the file it comes from, which is hashed. ValueError for
    what of it cannot be read, then and later."""
    try:
        with ExitStack() as stack:
            source = _Hashed(stack.enter_context(open(path, "rb", buffering=0)))
            raw = io.BufferedReader(source, READ)
            if path.suffix == ".gz":
                raw = stack.enter_context(gzip.GzipFile(fileobj=raw))
            elif path.suffix == ".zst":
                raw = stack.enter_context(zstd.ZstdFile(raw))
            yield io.TextIOWrapper(raw, "utf-8-sig", newline=""), source
    except UnicodeDecodeError as error:
        raise ValueError(
            f"shard {shown(path)} is not UTF-8 ({error.reason}): convert it first, for instance "
            "with iconv"
        ) from error
    except DAMAGED as error:
        raise ValueError(f"shard {shown(path)} is damaged ({error}): fetch it again") from error


def beginning(path: Path, characters: int, field: str = "text") -> str:
    """The first characters of a shard's texts, to train a tokenizer on."""
    see(path)
    with _opened(Path(path)) as (stream, _):
        if ".jsonl" not in path.suffixes:
            return stream.read(characters)
        parts, size = [], 0
        for number, line in enumerate(stream, 1):
            if not line.isspace():
                parts.append(document(line, field, f"shard {shown(path)}, line {number:,},"))
                size += len(parts[-1])
            if size >= characters:
                break
        return "\n".join(parts)


def see(path: Path) -> None:
    """FileNotFoundError or ValueError for a shard that cannot be begun with."""
    if not path.is_file():
        raise FileNotFoundError(f"shard {shown(path)} does not exist: give the path of a file")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"shard {shown(path)} cannot be read: see to its rights")
    if path.suffix == ".zst" and zstd is None:
        raise ValueError(
            f"shard {shown(path)} needs the package backports.zstd: install it (pip install "
            "backports.zstd), decompress the shard (zstd -d), or give it as .gz"
        )


def _write_json(path: Path, value) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _ids_path(folder: Path, place: int) -> Path:
    return folder / f"{place:05d}.ids"


def _named(shard: dict, path: Path, what: str) -> str:
    return f"{shown(path)}, the ids of shard {shown(shard['name'])}, {what}: {REMEDY}"
