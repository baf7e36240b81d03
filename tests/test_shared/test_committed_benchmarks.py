"""The command that prints what the benchmarks measured."""

import csv

import pytest

from benchmarks.__main__ import HERE, NAMES, main, tables


@pytest.mark.parametrize("name", NAMES)
def test_every_committed_table_is_printed_with_what_made_it(name, capsys):
    found = list(tables(name))
    for _, rows, made in found:
        assert rows
        assert {"command", "time_utc", "machine", "versions"} <= set(made)
    assert main([name]) == 0
    printed = capsys.readouterr().out
    assert printed.count(f"## {name}: ") == len(found)
    assert sum(line.startswith("|--") for line in printed.splitlines()) == len(found)
    for path in (HERE / name / "data").glob("*.csv"):
        with path.open(newline="") as file:
            assert sum(1 for _ in csv.DictReader(file)) == len(
                next(rows for title, rows, _ in found if title == path.stem)
            )


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["inferense"])
    assert "must be of clustering, compressors" in capsys.readouterr().err
