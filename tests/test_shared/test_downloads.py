"""Fetching of pinned package files, with pip reading from a local folder."""

import errno
import hashlib
import os
import threading
import zipfile
from pathlib import Path

import pytest

import shared.downloads as downloads
from shared.downloads import DownloadError, PackageFile, fetch_packages, missing_packages

WHEEL = "tiny_data-1.0-py3-none-any.whl"


def make_wheel(folder: Path, name: str = "tiny_data", text: str = "content") -> PackageFile:
    """Write a valid wheel and return its pin."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/text.txt", text)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return PackageFile(name.replace("_", "-"), "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Return a folder that pip uses in place of the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def pip_calls(monkeypatch):
    """Record which packages pip is asked for."""
    calls: list[str] = []
    original = downloads._pip_download

    def recording(file, folder):
        calls.append(file.name)
        original(file, folder)

    monkeypatch.setattr(downloads, "_pip_download", recording)
    return calls


def visible(folder: Path) -> set[str]:
    """Return the names in a folder except the lock file."""
    return {path.name for path in folder.iterdir()} - {".fetch.lock"}


def test_fetches_once_and_keeps_what_is_there(index, tmp_path, pip_calls):
    pin = make_wheel(index)
    target = tmp_path / "data"
    assert missing_packages([pin], target) == [pin]
    paths = fetch_packages([pin], target)
    assert paths == {WHEEL: target / WHEEL}
    assert paths[WHEEL].read_bytes() == (index / WHEEL).read_bytes()
    assert visible(target) == {WHEEL}
    fetch_packages([pin], target)
    assert pip_calls == ["tiny-data"]
    assert missing_packages([pin], target) == []


def test_continues_with_what_is_missing_after_a_failure(index, tmp_path, pip_calls):
    first, second = make_wheel(index, "tiny_one"), make_wheel(index, "tiny_two")
    hidden = index.parent / second.filename
    (index / second.filename).rename(hidden)
    target = tmp_path / "data"
    with pytest.raises(DownloadError, match=r"no wheel of tiny-two 1\.0"):
        fetch_packages([first, second], target)
    assert visible(target) == {first.filename}
    hidden.rename(index / second.filename)
    fetch_packages([first, second], target)
    assert visible(target) == {first.filename, second.filename}
    assert pip_calls == ["tiny-one", "tiny-two", "tiny-two"]


def test_damaged_file_is_fetched_again_and_said(index, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PROGRESS", raising=False)
    pin = make_wheel(index)
    target = tmp_path / "data"
    target.mkdir()
    (target / WHEEL).write_bytes(b"half of a fi")
    fetch_packages([pin], target)
    assert (target / WHEEL).read_bytes() == (index / WHEEL).read_bytes()
    assert "damaged" in capsys.readouterr().err


def test_other_content_than_pinned_is_refused(index, tmp_path):
    pin = make_wheel(index)
    wrong = PackageFile(pin.name, pin.version, pin.filename, "0" * 64)
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch_packages([wrong], tmp_path / "data")
    assert visible(tmp_path / "data") == set()


def test_no_network_is_one_clear_sentence(tmp_path, monkeypatch):
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens there
    monkeypatch.setattr(downloads, "_RETRIES", 1)
    with pytest.raises(DownloadError, match="could not be reached for tiny-data") as caught:
        fetch_packages([PackageFile("tiny-data", "1.0", WHEEL, "0" * 64)], tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert visible(tmp_path / "data") == set()


def test_leftovers_of_a_killed_process_are_removed(index, tmp_path):
    target = tmp_path / "data"
    leftover = target / ".fetching-abc"
    leftover.mkdir(parents=True)
    (leftover / WHEEL).write_bytes(b"part")
    fetch_packages([make_wheel(index)], target)
    assert visible(target) == {WHEEL}


def test_two_at_once_fetch_once(index, tmp_path, pip_calls):
    pin = make_wheel(index)
    threads = [threading.Thread(target=fetch_packages, args=([pin], tmp_path / "data")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pip_calls == ["tiny-data"]
    assert visible(tmp_path / "data") == {WHEEL}


def test_unwritable_folder_is_a_download_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch_packages([PackageFile("tiny-data", "1.0", WHEEL, "0" * 64)], tmp_path / "file" / "data")


def test_a_folder_that_holds_every_file_is_not_written_to(index, tmp_path, monkeypatch):
    pin = make_wheel(index)

    def read_only(folder):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(downloads, "_lock", read_only)
    before = visible(index)
    assert fetch_packages([pin], index) == {WHEEL: index / WHEEL}
    assert visible(index) == before
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch_packages([pin, PackageFile("other", "1.0", "other.whl", "0" * 64)], index)


@pytest.mark.parametrize(
    ("changed", "argument"),
    [({"filename": "../x.whl"}, "filename"), ({"sha256": "12"}, "sha256"), ({"kind": "egg"}, "kind")],
)
def test_bad_pin_names_the_argument(changed, argument):
    values = {"name": "a", "version": "1", "filename": "a.whl", "sha256": "0" * 64, "kind": "wheel"} | changed
    with pytest.raises(ValueError, match=f"Argument `{argument}`"):
        PackageFile(**values)
