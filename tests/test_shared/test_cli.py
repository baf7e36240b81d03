import errno

import pytest

from shared.cli import run_command


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("Argument `x` must be 1."), 2, "error: Argument `x` must be 1.\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.xyz"), 2, "a.xyz"),
        (RuntimeError("The field did not converge."), 1, "did not converge"),
        (OSError(errno.ENOSPC, "No space left on device", "results/a.csv"), 1, "Free some space"),
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
