import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from shared.artifacts import (
    Cache,
    atomic_path,
    committed_result,
    content_hash,
    provenance,
    sha256_file,
    write_json,
    write_text,
)
from shared.files import check_file


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(OSError, match="full"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise OSError(28, "disk full")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_written_through(exists, tmp_path):
    target, link = tmp_path / "there" / "a.txt", tmp_path / "link.txt"
    link.symlink_to(target)
    if exists:
        write_text(target, "old")
    write_text(link, "new")
    assert target.read_text() == "new"
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link.txt", "there"]
    assert os.listdir(tmp_path / "there") == ["a.txt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_raises_and_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "a.json"
    with pytest.raises(OSError, match="No space left"), atomic_path(target) as temporary:
        temporary.symlink_to("/dev/full")
        with open(temporary, "w") as file:
            file.write("x" * 100_000)
    assert os.listdir(tmp_path) == []


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert os.listdir(tmp_path) == []


def test_content_hash_ignores_the_order_of_keys_only():
    assert content_hash({"a": 1, "b": [1, 2]}) == content_hash({"b": [1, 2], "a": 1})
    assert content_hash({"a": [1, 2]}) != content_hash({"a": [2, 1]})
    assert content_hash({"a": 1}) != content_hash({"a": 1.5})


def test_sha256_of_known_text(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_cache_makes_once_and_keeps_the_key(tmp_path):
    cache = Cache(tmp_path, "c")
    calls = []

    def make(folder):
        calls.append(1)
        write_text(folder / "x", "1")

    key = {"a": 1}
    first, second = cache.get_or_make(key, make), cache.get_or_make({"a": 1}, make)
    assert first == second
    assert calls == [1]
    assert json.loads((first / "key.json").read_text()) == key


def test_failed_entry_is_not_kept_but_its_work_folder_is(tmp_path):
    cache = Cache(tmp_path, "c")
    key = {"a": 2}
    write_text(cache.work_folder(key) / "checkpoint", "half")

    def fail(folder):
        write_text(folder / "x", "1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_make(key, fail)
    assert not cache.path(key).exists()
    assert (cache.work_folder(key) / "checkpoint").read_text() == "half"
    cache.get_or_make(key, lambda folder: write_text(folder / "x", "1"))
    assert [path.name for path in cache.folder.iterdir() if path.suffix == ".work"] == []


_WORKER = """
    import sys, time
    from pathlib import Path
    from shared.artifacts import Cache
    def make(folder):
        with open(sys.argv[2], "a") as log: log.write("made\\n")
        time.sleep(float(sys.argv[3]))
        (folder / "x").write_text("1")
    print(Cache(sys.argv[1], "c").get_or_make({"k": 1}, make))
"""


def _start(tmp_path, seconds):
    command = [sys.executable, "-c", textwrap.dedent(_WORKER), str(tmp_path), str(tmp_path / "log"), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_do_the_work_once(tmp_path):
    workers = [_start(tmp_path, 1.0), _start(tmp_path, 1.0)]
    outputs = [worker.communicate(timeout=60) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_a_killed_maker_blocks_nobody(tmp_path):
    victim = _start(tmp_path, 60)
    while not (tmp_path / "log").exists():
        assert victim.poll() is None
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    folder = tmp_path / "c"
    other = folder / ".another.1.abcd.tmp"
    other.mkdir()
    assert len(list(folder.glob(f".{content_hash({'k': 1})}.*.tmp"))) == 1
    heir = _start(tmp_path, 0)
    output, error = heir.communicate(timeout=60)
    assert heir.returncode == 0, error
    assert output.strip().endswith(content_hash({"k": 1}))
    assert list(folder.glob(".*.tmp")) == [other]  # that of another key stays


def test_provenance_names_versions_machine_and_command():
    record = provenance({"lr": 1.0}, seconds=1.23456)
    assert record["seconds"] == 1.235
    assert record["config"] == {"lr": 1.0}
    assert {"python", "numpy", "torch"} <= record["versions"].keys()
    assert record["machine"]["cores"] >= 1
    json.dumps(record, allow_nan=False)


def test_failed_work_leaves_a_work_folder_only_with_checkpoints(tmp_path):
    cache = Cache(tmp_path)
    for n_files in (0, 1):

        def fail(target, n_files=n_files):
            for number in range(n_files):
                (cache.work_folder({"a": 1}) / str(number)).touch()
            cache.work_folder({"a": 1})
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            cache.get_or_make({"a": 1}, fail)
        assert len(list(cache.folder.glob("*.work"))) == n_files


def test_a_record_is_made_once_and_read_as_json(tmp_path):
    cache, calls = Cache(tmp_path, name="records"), []

    def make():
        calls.append(1)
        return {"pair": (1, 2)}

    first, again = (cache.record("row.json", {"a": 1}, make) for _ in range(2))
    assert first == again == {"pair": [1, 2]}
    assert len(calls) == 1
    assert cache.record("row.json", {"a": 2}, make) == first
    assert len(calls) == 2


def test_a_committed_result_is_that_of_the_settings(tmp_path):
    path = tmp_path / "found.json"
    assert committed_result(None, "study", {}) is None
    assert committed_result(path, "study", {}) is None
    write_json(path, {"study": {"pair": (1, 2)}, "value": 3})
    assert committed_result(path, "study", {"pair": (1, 2)})["value"] == 3
    assert committed_result(path, "study", {"pair": (1, 3)}) is None


def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="is a device or a pipe"):
        write_json(pipe, {})
    with pytest.raises(ValueError, match=r"Option `--json` must name a file, but .* is a device or a pipe"):
        check_file(pipe, "Option `--json`")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
