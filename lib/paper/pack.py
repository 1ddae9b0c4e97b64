"""dist/*.tar.gz, the same bytes from the same files: sorted, no owner, one time stamp, a manifest
inside."""

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
from pathlib import Path

from . import stages
from .about import about
from .files import sha256, tree, write_bytes, write_text
from .names import hash_line, read_hash_lines, short
from .parameters import ParameterError
from .project import Project

MANIFEST = "MANIFEST.sha256"
EPOCH = 1700000000  # SOURCE_DATE_EPOCH unless the environment gives another


class PackError(ValueError):
    """A pack that is missing, changed, or not one of ours."""


def archive(files: dict[str, bytes], top: str, epoch: int) -> bytes:
    """A gzipped tar of `files` below the folder `top`; the bytes depend on names, contents and
    `epoch` alone."""
    hashed = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = "".join(hash_line(sha, name) for name, sha in sorted(hashed.items()))
    buffer = io.BytesIO()
    with gzip.GzipFile(
        filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=epoch
    ) as zipped:
        with tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, data in sorted({**files, MANIFEST: os.fsencode(manifest)}.items()):
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mtime, entry.mode = len(data), epoch, 0o644
                tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def pack_model(project: Project, run_dir: Path, epoch: int | None = None) -> Path:
    """dist/model.tar.gz: the headline model's folder."""
    folder = run_dir / "model"
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in tree(folder)}
    data = archive(files, "model", source_date() if epoch is None else epoch)
    return _write(project.root / "dist" / "model.tar.gz", data)


def pack_run(project: Project, run_dir: Path, epoch: int | None = None) -> Path:
    """dist/mini-transformer-<run>-v<version>.tar.gz: everything a run left, without its
    evidence."""
    if not (run_dir / "HASHES.txt").is_file():
        profile = run_dir.name.split("-")[0]
        raise PackError(
            f"{project.relative(run_dir)} holds no finished run: run make report PROFILE={profile}"
        )
    files = {name: (run_dir / name).read_bytes() for name in stages.artefacts(run_dir)}
    top = pack_name(project, run_dir)
    data = archive(files, top, source_date() if epoch is None else epoch)
    return _write(project.root / "dist" / f"{top}.tar.gz", data)


def source_date() -> int:
    """SOURCE_DATE_EPOCH from the environment, or EPOCH; ParameterError where it is no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH") or str(EPOCH)
    if not (text.isascii() and text.isdigit()):
        raise ParameterError(
            f"SOURCE_DATE_EPOCH = {short(text)!r} is not a whole number of seconds: give one, such "
            f"as {EPOCH}"
        )
    return int(text)


def pack_name(project: Project, run_dir: Path) -> str:
    """Its version is that of the sources, which nobody need have installed."""
    return f"mini-transformer-{run_dir.name}-v{about(project.root)['version']}"


def _write(path: Path, data: bytes) -> Path:
    write_bytes(path, data)
    line = f"{hashlib.sha256(data).hexdigest()}  {path.name}\n"
    write_text(path.with_name(f"{path.name}.sha256"), line)
    return path


def one_byte_fails(path: Path) -> bool:
    """Whether a copy of a pack with one byte changed, the middle one, is refused."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        write_bytes(copy, bytes(data))
        beside = path.with_name(f"{path.name}.sha256")
        write_bytes(copy.with_name(beside.name), beside.read_bytes())
        try:
            verify(copy)
        except PackError:
            return True
    return False


def verify(path: Path) -> int:
    """The number of files in a pack that all match; PackError names the first that does not."""
    sidecar = path.with_name(f"{path.name}.sha256")
    if not path.is_file() or not sidecar.is_file():
        missing = path.name if sidecar.is_file() else sidecar.name
        raise PackError(f"{missing} is missing in {path.parent.name}/: run make pack")
    known, found = sidecar.read_bytes().decode("ascii", "replace").partition(" ")[0], sha256(path)
    if known != found:
        raise PackError(
            f"{path.name} was changed: its SHA-256 is {found[:12]}…, not {known[:12]}…: run make "
            "pack"
        )
    with tarfile.open(path) as tar:
        members = {m.name.split("/", 1)[1]: tar.extractfile(m).read() for m in tar.getmembers()}
    listed = read_hash_lines(os.fsdecode(members.pop(MANIFEST, b"")))
    for name in sorted(members.keys() | listed.keys()):
        data = members.get(name)
        if data is None or hashlib.sha256(data).hexdigest() != listed.get(name):
            raise PackError(f"{path.name}: {name} is not what {MANIFEST} says: run make pack")
    return len(listed)
