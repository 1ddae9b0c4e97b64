"""Packs: the same bytes from the same files, and one changed byte is found."""

import tarfile

import pytest

from paper import pack
from paper.files import write_bytes, write_text
from paper.project import Project


@pytest.fixture
def project(tmp_path):
    for name, text in {
        "HASHES.txt": "h",
        "index.html": "<p>",
        "model/config.json": "{}",
        "figures/ñ.csv": "a\n",
        ".stages/x.json": "{}",
        "02-train.failed.ipynb": "{}",
    }.items():
        write_text(tmp_path / "reports" / "quick" / name, text)
    write_text(tmp_path / "pyproject.toml", '[project]\nversion = "2.3"\n')  # installed or not
    return Project(tmp_path)


def packed(project, **options):
    return pack.pack_run(project, project.reports / "quick", **options)


def test_a_pack_holds_the_run_without_stamps_and_failures(project):
    path = packed(project)
    assert path.name == "mini-transformer-quick-v2.3.tar.gz" and pack.verify(path) == 4
    with tarfile.open(path) as tar:
        members = {m.name.split("/", 1)[1]: m for m in tar.getmembers()}
    assert list(members) == [
        "HASHES.txt",
        "MANIFEST.sha256",
        "figures/ñ.csv",
        "index.html",
        "model/config.json",
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members.values()} == {
        (1700000000, 0, 0, "", 0o644)
    }


def test_the_same_files_give_the_same_bytes_and_the_epoch_counts(project):
    first = packed(project).read_bytes()
    (project.reports / "quick" / "index.html").touch()
    assert packed(project).read_bytes() == first != packed(project, epoch=1).read_bytes()


@pytest.mark.parametrize("place", [0, 40, -1])
def test_one_changed_byte_fails(project, place):
    path = packed(project)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    write_bytes(path, bytes(data))
    with pytest.raises(pack.PackError, match="was changed"):
        pack.verify(path)


def test_a_changed_byte_is_tried_on_a_copy(project, monkeypatch):
    path = packed(project)
    before = path.read_bytes()
    assert pack.one_byte_fails(path) and path.read_bytes() == before
    monkeypatch.setattr(pack, "verify", lambda path: 1)  # one that sees nothing
    assert not pack.one_byte_fails(path)


def test_a_pack_with_a_matching_checksum_file_and_a_wrong_manifest_fails(project, monkeypatch):
    path = packed(project)
    for files in ({"a": b"1"}, {"a": b"1", "b": b"2"}, {}):
        data = pack.archive(files, "top", 0).replace(b"", b"")
        pack._write(path, data)
        assert pack.verify(path) == len(files)
    monkeypatch.setattr(
        pack, "MANIFEST", "LIST"
    )  # so that the archive's own manifest is a file nobody lists
    with pytest.raises(pack.PackError, match="MANIFEST.sha256 is not what LIST says"):
        pack.verify(path)


def test_what_is_missing_is_named(project):
    path = packed(project)
    path.with_name(f"{path.name}.sha256").unlink()
    with pytest.raises(pack.PackError, match=r"gz.sha256 is missing in dist/: run make pack"):
        pack.verify(path)
    path.unlink()
    with pytest.raises(pack.PackError, match="is missing in dist/"):
        pack.verify(path)
    (project.reports / "quick" / "HASHES.txt").unlink()
    with pytest.raises(
        pack.PackError, match="reports/quick holds no finished run: run make report PROFILE=quick"
    ):
        packed(project)


def test_the_model_is_packed_by_itself(project):
    path = pack.pack_model(project, project.reports / "quick")
    assert path.name == "model.tar.gz" and pack.verify(path) == 1
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["model/MANIFEST.sha256", "model/config.json"]
