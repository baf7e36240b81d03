import argparse
import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from shared.artifacts import default_cache_dir
from shared.cli import add_settings, run_command, shown
from shared.config import FrozenConfig, load_config

ROOT = str(Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("Argument `x` must be 1."), 2, "error: Argument `x` must be 1.\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.xyz"), 2, "error: 'a.xyz': no such file.\n"),
        (RuntimeError("The field did not converge."), 1, "did not converge"),
        (MemoryError("Unable to allocate 7 TiB"), 1, "too little memory for this: Unable to allocate 7 TiB."),
        (
            OSError(errno.ENOSPC, "No space left on device", "results/a.csv"),
            1,
            "a.csv': no space left on device. Free",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device. Free some space"),
        (KeyboardInterrupt(), 130, "same command continues"),
    ],
)
def test_errors_become_one_sentence_and_a_code(error, code, text, capsys):
    def command():
        raise error

    assert run_command(command) == code
    printed = capsys.readouterr().err
    assert text in printed
    assert printed.count("\n") == 1


def test_a_termination_removes_scratch_files_as_an_interruption_does(tmp_path, capsys):
    def command():
        with NamedTemporaryFile(dir=tmp_path):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    before = signal.getsignal(signal.SIGTERM)
    assert run_command(command) == 143
    assert "same command continues" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run_command, lambda: None).result() == 0


def test_success_is_zero_and_faults_of_the_program_pass():
    assert run_command(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)


class Settings(FrozenConfig):
    rates: tuple[float, ...] = (1e-5, 2.0)
    name: str | None = None


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_settings(parser, "results", cache="finished work")
    return parser.parse_args(words)


def test_settings_are_shown_as_a_file_that_gives_them_again(tmp_path, capsys):
    arguments = parsed("--set", "name=a: b", "--show-config")
    config = load_config(Settings, None, ["name='a: b'"])
    assert run_command(lambda: shown(arguments, config) and pytest.fail("it went on"), arguments) == 0
    printed = capsys.readouterr().out
    assert printed == "rates: [1.0e-05, 2.0]\nname: 'a: b'\n"
    path = tmp_path / "shown.yaml"
    path.write_text(printed, encoding="utf-8")
    assert load_config(Settings, path) == config
    assert shown(parsed(), config) is config


def test_paths_of_a_file_are_shown_from_the_root(tmp_path, capsys):
    config = load_config(Settings, None, ["name=system.json"])
    run_command(lambda: shown(parsed("--show-config"), config, tmp_path, "name"))
    assert f"name: {tmp_path / 'system.json'}\n" in capsys.readouterr().out
    run_command(lambda: shown(parsed("--show-config"), Settings(), tmp_path, "name"))
    assert "name: null\n" in capsys.readouterr().out


def test_a_cache_that_is_a_file_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    options = argparse.Namespace(folder=tmp_path / "file")
    assert run_command(lambda: pytest.fail("it began"), options) == 2
    assert "Option `--folder` must name a folder, but was" in capsys.readouterr().err
    monkeypatch.setenv("MOLECULAR_COMPRESSION_CACHE", str(tmp_path / "file"))
    assert run_command(default_cache_dir) == 2
    assert "The variable $MOLECULAR_COMPRESSION_CACHE must name a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "words"),
    [("file", "it is a file"), ("file/x", "file' is a file"), ("shut/x", "shut' (permission denied)")],
)
@pytest.mark.parametrize("option", ["--out", "--cache"])
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch, capsys, option, out, words):
    (tmp_path / "file").touch()
    (tmp_path / "shut").mkdir()
    mkdir = os.mkdir

    def mkdir_unless_shut(path, *mode):
        if "shut" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        mkdir(path, *mode)

    monkeypatch.setattr(os, "mkdir", mkdir_unless_shut)
    arguments = parsed(option, str(tmp_path / out))
    assert run_command(lambda: pytest.fail("it went on"), arguments) == 2
    assert words in capsys.readouterr().err
    assert run_command(lambda: None, parsed(option, str(tmp_path / "new" / "x"))) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "shut"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
def test_a_folder_where_even_a_superuser_makes_nothing_is_refused(capsys):
    assert run_command(lambda: pytest.fail("it went on"), parsed("--cache", "/proc/nope")) == 2
    assert "Option `--cache` must be a folder to write to, but was '/proc/nope'" in capsys.readouterr().err


def test_a_full_disk_is_not_taken_for_a_wrong_folder(tmp_path, monkeypatch, capsys):
    def full(path, *mode):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(os, "mkdir", full)
    assert run_command(lambda: pytest.fail("it went on"), parsed("--out", str(tmp_path / "out"))) == 1
    assert "Free some space" in capsys.readouterr().err


_WRITES = "import sys; from shared.cli import run_command; sys.exit(run_command(lambda: print('x' * {n}, file={file})))"
_FAILS = "import sys; from shared.cli import run_command; sys.exit(run_command(lambda: int('x')))"


@pytest.mark.parametrize(
    ("arguments", "unread"),
    [
        (["-c", _WRITES.format(n=5, file="sys.stdout")], "stdout"),
        (["-c", _WRITES.format(n=100_000, file="sys.stdout")], "stdout"),
        (["-u", "-c", _WRITES.format(n=5, file="sys.stdout")], "stdout"),
        (["-c", _WRITES.format(n=100_000, file="sys.stderr")], "stderr"),
        (["-c", _FAILS], "stderr"),
        (["-m", "compression", "--help"], "stdout"),
        (["-m", "molecular_qubits", "screen", "--help"], "stdout"),
        (["-m", "molecular_qubits", "molecules"], "stdout"),
        (["-m", "compression", "inspect", "nowhere"], "stderr"),
    ],
)
def test_a_reader_that_leaves_ends_a_command_without_a_word(arguments, unread):
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {unread: writer}
    environment = os.environ | {"PYTHONPATH": ROOT, "PYTHONUNBUFFERED": ""}
    done = subprocess.run([sys.executable, *arguments], **streams, env=environment, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert not done.stdout
    assert not done.stderr


def test_a_pipe_that_breaks_elsewhere_is_an_error(capsys):
    def command():
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    assert run_command(command) == 1
    assert capsys.readouterr().err == "error: Broken pipe.\n"
