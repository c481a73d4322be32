"""Opening packages, and writing them so that nobody ever sees half of one."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from coreml_helpers import digest, model_file, weight_file

from corepress import FormatError, SourceChangedError, coreml, system
from corepress.coreml.format.package import Package
from corepress.coreml.format.package_writer import PackageWriter


def _links_work() -> bool:
    """Whether symbolic links can be made and are followed; Windows wants a privilege, Wine has none."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "link")
        try:
            link.symlink_to(folder, target_is_directory=True)
        except OSError:
            return False
        return link.is_symlink() and link.samefile(folder)


needs_links = pytest.mark.skipif(not _links_work(), reason="symbolic links do not work here")
needs_unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has nothing like it")


def _edit_manifest(package, change):
    path = package / "Manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def _root_entry(manifest):
    return manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]


def test_opens_what_the_manifest_names(package):
    renamed = model_file(package).rename(package / "Data/com.apple.CoreML/other.mlmodel")
    _edit_manifest(package, lambda manifest: _root_entry(manifest).update(path="com.apple.CoreML/other.mlmodel"))
    opened = Package.open(package)
    assert opened.model_path == renamed.resolve()
    assert opened.locate("@model_path/weights/weight.bin") == weight_file(package).resolve()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.update(fileFormatVersion="1.0.1"), "newer than 1.0.0"),
        (lambda manifest: manifest.update(fileFormatVersion="2.0.0"), "newer than 1.0.0"),
        (lambda manifest: manifest.update(fileFormatVersion="1.0"), "three numbers"),
        (lambda manifest: manifest.update(fileFormatVersion="1.0.-1"), "three numbers"),
        (lambda manifest: manifest.update(fileFormatVersion="1.0.²"), "three numbers"),
        (lambda manifest: manifest.update(fileFormatVersion="9" * 5000 + ".0.0"), "three numbers"),
        (lambda manifest: manifest.pop("fileFormatVersion"), "three numbers, not None"),
        (lambda manifest: manifest.pop("rootModelIdentifier"), "rootModelIdentifier None"),
        (lambda manifest: manifest.update(rootModelIdentifier=["a"]), "rootModelIdentifier"),
        (lambda manifest: manifest.update(rootModelIdentifier="nobody"), "'nobody' must be a key"),
        (lambda manifest: manifest.update(itemInfoEntries=[]), "must be a key"),
        (lambda manifest: manifest["itemInfoEntries"].update(more="text"), "'more' must have a string 'path'"),
        (lambda manifest: _root_entry(manifest).pop("author"), "must have a string 'author'"),
        (lambda manifest: _root_entry(manifest).update(path=7), "must have a string 'path'"),
        (lambda manifest: _root_entry(manifest).update(path="missing.mlmodel"), "does not exist"),
        (lambda manifest: _root_entry(manifest).update(path=""), "must be relative"),
        (lambda manifest: _root_entry(manifest).update(path="/etc/hosts"), "must be relative"),
        (lambda manifest: _root_entry(manifest).update(path="../../elsewhere"), "must be relative"),
        (lambda manifest: _root_entry(manifest).update(path="..\\elsewhere"), "must be relative"),
        (lambda manifest: _root_entry(manifest).update(path="a\0b"), "must be relative"),
        (lambda manifest: _root_entry(manifest).update(path="\ud800"), "does not exist"),
        (lambda manifest: _root_entry(manifest).update(path="x" * 5000), "does not exist"),
        (lambda manifest: _root_entry(manifest).update(path="com.apple.CoreML/weights"), "is not a file"),
    ],
)
def test_damaged_manifest_is_named(package, change, message):
    _edit_manifest(package, change)
    with pytest.raises(FormatError, match=message) as caught:
        Package.open(package)
    assert "Manifest.json" in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b"\xff\xfe\xff", b"[" * 100_000, b'{"a": ' * 100_000])
def test_malformed_json_is_a_format_error(package, text):
    (package / "Manifest.json").write_bytes(text)
    with pytest.raises(FormatError, match=r"Manifest\.json"):
        Package.open(package)


def test_unknown_manifest_content_is_tolerated(package):
    _edit_manifest(package, lambda manifest: manifest.update(extra={"a": [1]}, fileFormatVersion="0.9.0"))
    Package.open(package)


def test_what_is_not_a_package(tmp_path, package):
    with pytest.raises(FileNotFoundError, match="no such package"):
        Package.open(tmp_path / "missing.mlpackage")
    with pytest.raises(ValueError, match=r"is a part of an ML program, without its weights; give .*mlpackage$"):
        Package.open(model_file(package))
    (tmp_path / "empty.mlpackage").mkdir()
    with pytest.raises(FormatError, match=r"no file Manifest\.json"):
        Package.open(tmp_path / "empty.mlpackage")
    (package / "Manifest.json").unlink()
    (package / "Manifest.json").mkdir()
    with pytest.raises(FormatError, match=r"no file Manifest\.json"):
        Package.open(package)


@pytest.mark.parametrize(
    "name",
    ["weights/weight.bin", "/etc/hosts", "@model_path", "@model_path/", "@model_path//etc/hosts",
     "@model_path/../../../Manifest.json", "@model_path/weights/../../x", "@model_path/weights", "@model_path/none"],
)  # fmt: skip
def test_references_stay_inside(package, name):
    with pytest.raises(FormatError):
        Package.open(package).locate(name)


def _link_out(package, folder):
    """Have all files of a package be links to files elsewhere, as caches of model hubs have it."""
    folder.mkdir()
    for index, path in enumerate([path for path in package.rglob("*") if path.is_file()]):
        blob = path.rename(folder / f"blob{index}")
        path.symlink_to(os.path.relpath(blob, path.parent))


@needs_links
def test_links_to_files_are_followed(package, tmp_path):
    size, before = Package.open(package).size, digest(package)
    coreml.compress(package, tmp_path / "plain.mlpackage", {"palettize": {"nbits": 4}})
    _link_out(package, tmp_path / "blobs")
    assert Package.open(package).size == size
    coreml.compress(package, tmp_path / "linked.mlpackage", {"palettize": {"nbits": 4}})
    assert digest(tmp_path / "linked.mlpackage") == digest(tmp_path / "plain.mlpackage")
    assert not any(path.is_symlink() for path in (tmp_path / "linked.mlpackage").rglob("*"))
    assert coreml.verify(package, tmp_path / "linked.mlpackage").ok
    assert not coreml.compare(package, package).different
    assert coreml.inspect(package).package_bytes == size
    assert digest(package) == before


@needs_links
def test_links_that_lead_nowhere_are_named(package, tmp_path):
    outside = weight_file(package).rename(tmp_path / "outside.bin")
    weight_file(package).symlink_to(outside)
    outside.unlink()
    with pytest.raises(FormatError, match=r"a symbolic link to .*outside\.bin, which does not exist"):
        Package.open(package).locate("@model_path/weights/weight.bin")
    weight_file(package).unlink()
    weight_file(package).symlink_to(weight_file(package))
    with pytest.raises(FormatError, match="does not exist"):
        Package.open(package).locate("@model_path/weights/weight.bin")


def _copy(source, destination, overwrite=False, edit=None):
    writer = PackageWriter(Package.open(source), destination, overwrite=overwrite)
    with writer:
        if edit:
            edit(writer)
        writer.finish()


@needs_links
def test_everything_that_is_not_edited_is_copied(package, tmp_path):
    (package / "notes").mkdir()
    (package / "notes/unlisted.txt").write_text("kept")
    (package / "empty").mkdir()
    (package / "notes/link").symlink_to("unlisted.txt")
    (package / "notes/unlisted.txt").chmod(0o640)
    destination = tmp_path / "copy.mlpackage"
    _copy(package, destination, edit=lambda writer: writer.write_model(b"edited"))
    before, after = digest(package), digest(destination)
    assert model_file(destination).read_bytes() == b"edited"
    assert {name for name in before if before[name] != after.get(name)} == {"Data/com.apple.CoreML/model.mlmodel"}
    assert set(after) == set(before)
    assert (destination / "empty").is_dir()
    assert os.readlink(destination / "notes/link") == "unlisted.txt"
    assert (destination / "notes/unlisted.txt").stat().st_mode & 0o777 == 0o640
    assert (destination.stat().st_mode & 0o777) == (package.stat().st_mode & 0o777)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.mlpackage", "source.mlpackage"]


def test_every_file_is_on_the_disk_before_the_package_appears(package, tmp_path, monkeypatch):
    destination = tmp_path / "copy.mlpackage"
    synced, fsync = set(), os.fsync

    def record(descriptor):
        assert not destination.exists() or os.fstat(descriptor).st_ino == tmp_path.stat().st_ino
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    coreml.compress(package, destination, {"palettize": {"nbits": 2}})
    written = [tmp_path, destination, *destination.rglob("*")]
    if sys.platform == "win32":  # where folders need no flush
        written = [path for path in written if path.is_file()]
    assert {path.stat().st_ino for path in written} <= synced


def test_a_read_only_package_is_copied(package, tmp_path):
    for path in [*package.rglob("*"), package]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    _copy(package, tmp_path / "copy.mlpackage", edit=lambda writer: writer.write_model(b"edited"))
    assert model_file(tmp_path / "copy.mlpackage").read_bytes() == b"edited"


@needs_links
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("../../outside", "does not exist"),
        ("/dev/null", "neither a file nor a directory"),
        ("/tmp", "a folder outside"),
    ],
)
def test_copying_refuses_links_to_what_is_no_file(package, tmp_path, target, message):
    (package / "link").symlink_to(target)
    with pytest.raises(FormatError, match=message):
        _copy(package, tmp_path / "copy.mlpackage")
    assert [path.name for path in tmp_path.iterdir()] == ["source.mlpackage"]


@needs_unix
def test_modes_follow_the_umask_without_special_bits(package, tmp_path):
    (package / "tool").write_text("")
    (package / "tool").chmod(0o6755)
    package.chmod(0o3777)
    before = os.umask(0o027)
    try:
        coreml.compress(package, tmp_path / "copy.mlpackage", {"quantize": {}})
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o7777 for path in (tmp_path / "copy.mlpackage").rglob("*")]
    assert not any(mode & 0o7027 for mode in modes)
    assert (tmp_path / "copy.mlpackage/tool").stat().st_mode & 0o7777 == 0o750


def test_a_source_that_changes_before_the_end_is_no_result(package, tmp_path):
    with pytest.raises(SourceChangedError, match=r"weight\.bin: changed while it was read"):
        _copy(package, tmp_path / "copy.mlpackage", edit=lambda writer: os.utime(weight_file(package)))
    assert [path.name for path in tmp_path.iterdir()] == ["source.mlpackage"]


def _killed(package, destination, moment):
    """A process that ends without cleaning up when it calls a function."""
    code = (
        "import os, sys; from corepress import coreml, outputs, system\n"
        "system.current.exchange = lambda first, second: False\n"
        f"{moment} = lambda *_: os._exit(9)\n"
        "coreml.compress(sys.argv[1], sys.argv[2], {'quantize': {}}, overwrite=True)"
    )
    assert subprocess.run([sys.executable, "-c", code, package, destination], check=False).returncode == 9


def test_what_a_killed_run_left_is_removed(package, tmp_path, caplog):
    destination = tmp_path / "copy.mlpackage"
    _killed(package, destination, "outputs.put_in_place")
    (left,) = tmp_path.glob(".copy.mlpackage.*.partial")
    _copy(package, destination)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.mlpackage", "source.mlpackage"]
    assert f"{left}: removed" in caplog.text


def test_a_package_that_a_killed_run_moved_away_is_brought_back(package, tmp_path, caplog):
    destination = tmp_path / "copy.mlpackage"
    _copy(package, destination, edit=lambda writer: writer.write_model(b"old"))
    before = digest(destination)
    _killed(package, destination, "rename = os.rename; os.rename = lambda *a: (rename(*a), os._exit(9)); unused")
    assert not destination.exists()
    with pytest.raises(FileExistsError):
        _copy(package, destination)
    assert digest(destination) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.mlpackage", "source.mlpackage"]
    assert "restored" in caplog.text


def test_what_a_living_run_writes_is_left_alone(package, tmp_path):
    destination = tmp_path / "copy.mlpackage"
    with PackageWriter(Package.open(package), destination) as writer:
        (living,) = tmp_path.glob(".copy.mlpackage.*.partial")
        foreign = tmp_path / f".copy.mlpackage.{'0' * 16}.partial"
        foreign.mkdir()
        (foreign / "thesis.txt").write_text("precious")
        _copy(package, destination)
        assert living.is_dir()
        writer.overwrite = True
        writer.finish()
    assert (foreign / "thesis.txt").read_text() == "precious"
    assert digest(destination) == digest(package)


@needs_unix
def test_copying_refuses_pipes(package, tmp_path):
    os.mkfifo(package / "pipe")
    with pytest.raises(FormatError, match="neither a file nor a directory"):
        _copy(package, tmp_path / "copy.mlpackage")
    assert [path.name for path in tmp_path.iterdir()] == ["source.mlpackage"]


def test_an_existing_destination_is_refused_or_replaced(package, tmp_path):
    destination = tmp_path / "copy.mlpackage"
    _copy(package, destination, edit=lambda writer: writer.write_model(b"old"))
    (destination / "old").write_text("old")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        PackageWriter(Package.open(package), destination)
    _copy(package, destination, overwrite=True)
    assert digest(destination) == digest(package)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_destination_that_appears_meanwhile_is_kept(package, tmp_path):
    destination = tmp_path / "copy.mlpackage"
    with pytest.raises(FileExistsError):
        _copy(package, destination, edit=lambda writer: destination.mkdir())
    assert list(destination.iterdir()) == []


def test_a_failed_replacement_brings_the_old_package_back(package, tmp_path, monkeypatch):
    destination = tmp_path / "copy.mlpackage"
    _copy(package, destination, edit=lambda writer: writer.write_model(b"old"))
    before = digest(destination)
    rename = os.rename

    def fail_second(source, target):
        if str(target) == str(destination) and "replaced" not in str(source):
            raise OSError("disk on fire")
        rename(source, target)

    monkeypatch.setattr(system.current, "exchange", lambda first, second: False)
    monkeypatch.setattr(os, "rename", fail_second)
    with pytest.raises(OSError, match="disk on fire"):
        _copy(package, destination, overwrite=True)
    assert digest(destination) == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_nothing_is_left_behind(package, tmp_path, error):
    def fail(writer):
        writer.write_model(b"half")
        raise error

    with pytest.raises(error):
        _copy(package, tmp_path / "copy.mlpackage", edit=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["source.mlpackage"]


@needs_links
def test_destinations_that_would_harm(package, tmp_path):
    opened = Package.open(package)
    (tmp_path / "link.mlpackage").symlink_to(package)
    (tmp_path / "folder").symlink_to(tmp_path)
    for destination in (package, package / "Data/inner.mlpackage", tmp_path / "link.mlpackage",
                        tmp_path / "folder/source.mlpackage"):  # fmt: skip
        with pytest.raises(ValueError, match="must not be, contain or be inside the source"):
            PackageWriter(opened, destination, overwrite=True)
    outer = tmp_path / "outer.mlpackage"
    outer.mkdir()
    inner = package.rename(outer / "inner.mlpackage")
    with pytest.raises(ValueError, match="must not be, contain or be inside the source"):
        PackageWriter(Package.open(inner), outer, overwrite=True)


def test_destinations_that_are_no_packages(package, tmp_path):
    opened = Package.open(package)
    with pytest.raises(ValueError, match=r"must end in \.mlpackage"):
        PackageWriter(opened, tmp_path / "copy")
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        PackageWriter(opened, tmp_path / "missing/copy.mlpackage")
    (tmp_path / "home.mlpackage").mkdir()
    (tmp_path / "home.mlpackage/thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="not a package; it is not overwritten"):
        PackageWriter(opened, tmp_path / "home.mlpackage", overwrite=True)
