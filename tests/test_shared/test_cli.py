import argparse
import errno
import os

import pytest

from shared.cli import add_settings, run_command, shown
from shared.config import FrozenConfig, load_config


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("Argument `x` must be 1."), 2, "error: Argument `x` must be 1.\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.xyz"), 2, "error: 'a.xyz': no such file.\n"),
        (RuntimeError("The field did not converge."), 1, "did not converge"),
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


def test_success_is_zero_and_faults_of_the_program_pass():
    assert run_command(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)


class Settings(FrozenConfig):
    rates: tuple[float, ...] = (1e-5, 2.0)
    name: str | None = None


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_settings(parser, "results")
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


@pytest.mark.parametrize(
    ("out", "words"),
    [("file", "it is a file"), ("file/x", "file' is a file"), ("shut/x", "shut' is read-only")],
)
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch, capsys, out, words):
    (tmp_path / "file").touch()
    (tmp_path / "shut").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: "shut" not in str(path))
    arguments = parsed("--out", str(tmp_path / out))
    assert run_command(lambda: pytest.fail("it went on"), arguments) == 2
    assert words in capsys.readouterr().err
    assert run_command(lambda: None, parsed("--out", str(tmp_path / "new" / "x"))) == 0
    assert not (tmp_path / "new").exists()
