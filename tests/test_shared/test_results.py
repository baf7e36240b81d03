import csv
import re

import pytest

from shared.config import FrozenConfig
from shared.plotting import COLUMN_WIDTH_IN, cell_edges, new_figure, save_figure, style
from shared.report import build_report, main
from shared.results import ResultsWriter, format_cell, titled_table, write_table


class Settings(FrozenConfig):
    n: int = 3


def _draw():
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1])
    axes.set_xlabel("time / ns")
    return figure


def test_page_holds_everything_in_itself(tmp_path):
    writer = ResultsWriter(tmp_path, "demo", Settings())
    writer.section("Title & more", "First part.\n\nSecond <part>.")
    writer.figure(_draw, "line", caption="A line.")
    writer.table([{"name": "a|b", "x": 1.23456789, "n": 12345, "ok": True}], "numbers", caption="Numbers.")
    writer.finish()
    page = build_report(tmp_path).read_text()
    assert "Title &amp; more" in page
    assert "Second &lt;part&gt;." in page
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert '<td class="number">12,345</td>' in page
    assert {path.name for path in (tmp_path / "demo").iterdir()} >= {
        "config.json", "line.png", "line.pdf", "line_dark.png", "numbers.csv", "numbers.md", "summary.json"
    }  # fmt: skip


def test_an_unfinished_run_is_not_shown_with_the_text_of_an_earlier_one(tmp_path):
    for number in (1, 2):
        writer = ResultsWriter(tmp_path, "demo", Settings(n=number))
        writer.section("Title", f"The number is {number}.")
        writer.table([{"number": number}], "numbers", caption="Numbers.")
        if number == 1:
            writer.finish()
    with pytest.raises(FileNotFoundError, match="make reproduce"):
        build_report(tmp_path)
    writer.finish()
    assert "The number is 2." in build_report(tmp_path).read_text()


def test_csv_keeps_every_digit(tmp_path):
    write_table([{"x": 0.1 + 0.2}], tmp_path / "t")
    with open(tmp_path / "t.csv") as file:
        assert float(next(csv.DictReader(file))["x"]) == 0.1 + 0.2


def test_rows_must_agree(tmp_path):
    with pytest.raises(ValueError, match="row 1"):
        write_table([{"a": 1}, {"b": 1}], tmp_path / "t")
    with pytest.raises(ValueError, match="empty"):
        write_table([], tmp_path / "t")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (True, "yes"), (1234567, "1,234,567"), (0.0, "0"), (68.39, "68.39"), (1.5e-7, "1.500e-07")],
)
def test_cells(value, text):
    assert format_cell(value) == text


def test_no_results_is_an_error_with_the_remedy(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "make reproduce" in capsys.readouterr().err


def test_figures_have_column_width_and_repeat_bit_for_bit(tmp_path):
    with style():
        figure = _draw()
        assert figure.get_size_inches()[0] == COLUMN_WIDTH_IN
        first = [path.read_bytes() for path in save_figure(figure, tmp_path / "a")]
        second = [path.read_bytes() for path in save_figure(figure, tmp_path / "b")]
    assert first == second


def test_a_titled_table_shows_rounding_errors_as_zero():
    text = titled_table("Budget", [{"source": "dark", "loss": -4e-16}, {"source": "light", "loss": 2e-9}])
    assert text.splitlines()[:2] == ["Budget", ""]
    assert "| dark | 0 |" in text
    assert "| light | 2.000e-09 |" in text


def test_edges_of_cells_lie_between_the_values_on_a_logarithmic_axis():
    assert cell_edges([1.0, 100.0, 1000.0]) == pytest.approx([0.1, 10.0, 10**2.5, 10**3.5])
