"""One matplotlib style for every figure: journal column widths, colour-blind safe, light and dark."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shared.artifacts import atomic_path

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

COLUMN_WIDTH_IN = 3.375
"""Width of one column of a two-column journal, in inches (86 mm)."""

PAGE_WIDTH_IN = 7.0
"""Width of the full page of a two-column journal, in inches (178 mm)."""

FIGURE_DPI = 300
"""Dots per inch of raster figures."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Line colours after Okabe and Ito: told apart with every common form of colour blindness and on light and dark."""

_LIGHT = {"ink": "#1a1a1a", "paper": "#ffffff", "grid": "#d9d9d9"}
_DARK = {"ink": "#e6e6e6", "paper": "#16181d", "grid": "#3a3f4a"}


@contextmanager
def style(dark: bool = False) -> Iterator[None]:
    """Apply the project's matplotlib style inside a block, on the Agg canvas if no other was chosen.

    Parameters
    ----------
    dark
        Light ink on a dark page in place of dark ink on a white one.
    """
    import matplotlib
    from cycler import cycler

    tone = _DARK if dark else _LIGHT
    markers = cycler(color=COLOURS) + cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))])
    settings: Any = {
        "figure.facecolor": tone["paper"],
        "figure.constrained_layout.use": True,
        "figure.dpi": 120,
        "savefig.dpi": FIGURE_DPI,
        "savefig.facecolor": tone["paper"],
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.facecolor": tone["paper"],
        "axes.edgecolor": tone["ink"],
        "axes.labelcolor": tone["ink"],
        "axes.titlecolor": tone["ink"],
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": markers,
        "text.color": tone["ink"],
        "xtick.color": tone["ink"],
        "ytick.color": tone["ink"],
        "grid.color": tone["grid"],
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.3,
        "lines.markersize": 4,
        "errorbar.capsize": 2,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "image.cmap": "cividis",
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(
    width: Literal["column", "page"] = "column", aspect: float = 0.7, nrows: int = 1, ncols: int = 1, **kwargs: Any
) -> tuple["Figure", Any]:
    """Return a figure of a journal's width with its axes; call it inside `style`.

    Parameters
    ----------
    width
        ``"column"`` (3.375 in) or ``"page"`` (7 in).
    aspect
        Height over width of the whole figure.
    nrows, ncols
        Grid of axes.
    **kwargs
        Passed to ``Figure.subplots``.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : matplotlib.axes.Axes or numpy.ndarray of Axes
    """
    from matplotlib.figure import Figure

    if width not in ("column", "page"):
        raise ValueError(f"Argument `width` must be 'column' or 'page', but was {width!r}.")
    inches = COLUMN_WIDTH_IN if width == "column" else PAGE_WIDTH_IN
    figure = Figure(figsize=(inches, inches * aspect))
    return figure, figure.subplots(nrows, ncols, **kwargs)


def cell_edges(values: "Sequence[float] | NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the edges (n + 1,) of cells around ascending positive values (n,), n > 1, on a logarithmic axis.

    They lie in the middle between neighbours; the outermost cells are symmetric about their values.
    """
    import numpy as np

    logs = np.log(np.asarray(values, dtype=float))
    middles = (logs[1:] + logs[:-1]) / 2
    return np.exp(np.concatenate([[2 * logs[0] - middles[0]], middles, [2 * logs[-1] - middles[-1]]]))


def save_figure(figure: "Figure", stem: str | Path, formats: tuple[str, ...] = ("png", "pdf")) -> list[Path]:
    """Write a figure atomically, once for each format, and return the paths ``stem.format``.

    Files carry no time stamp, so that the same figure gives the same bytes.
    """
    stem = Path(stem)
    paths = []
    for ending in formats:
        path = stem.with_name(f"{stem.name}.{ending}")
        with atomic_path(path) as temporary:
            metadata = {"CreationDate": None} if ending == "pdf" else None
            figure.savefig(temporary, format=ending, metadata=metadata)
        paths.append(path)
    return paths
