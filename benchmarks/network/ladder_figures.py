"""Figures of the ladder of simulators: what they cost, and how far they are from the one below."""

from typing import Any

from shared.plotting import COLOURS, new_figure

NAMES = {
    "lindblad": "master equation", "channels": "gate channels", "trajectories": "trajectories",
    "mps": "matrix products", "stim": "stabilisers", "twirl": "twirled noise",
}  # fmt: skip


def draw_cost(rows: list[dict[str, Any]]) -> Any:
    """Seconds and expected memory against the number of radicals, for each rung."""
    figure, (left, right) = new_figure("page", 0.42, 1, 2)
    for (rung, label), colour, marker in zip(NAMES.items(), COLOURS, "osD^v", strict=False):
        here = [row for row in rows if row["rung"] == rung]
        sizes = [row["radicals"] for row in here]
        left.plot(sizes, [row["seconds"] for row in here], color=colour, marker=marker, label=label)
        right.plot(sizes, [row["GiB expected"] for row in here], color=colour, marker=marker)
    layers, shots = rows[0]["layers"], rows[0]["shots"]
    left.set(
        xscale="log", yscale="log", xlabel="radicals", ylabel="seconds on two cores",
        title=f"{layers} layers of random Clifford gates, {shots} shots",
    )  # fmt: skip
    right.set(xscale="log", yscale="log", xlabel="radicals", ylabel="most memory it may take (GiB)", ylim=(1e-6, 1e2))
    right.axhline(4.0, color="0.5", linewidth=0.7, linestyle=":")
    right.text(0.98, 5.0, "default limit", transform=right.get_yaxis_transform(), ha="right", fontsize="small")
    left.legend()
    for ax in (left, right):
        ax.grid(True, which="major", alpha=0.4)
    return figure


def draw_agreement(rows: list[dict[str, Any]]) -> Any:
    """Difference of the fidelity of each rung from that of the rung below, with the sampling error of random ones."""
    figure, ax = new_figure("page", 0.4)
    kinds = list(dict.fromkeys(row["rung"] for row in rows))
    for kind, colour, marker in zip(kinds, (*COLOURS, "0.4", "0.6"), "osD^v<>p", strict=False):
        here = [row for row in rows if row["rung"] == kind]
        shift = 0.12 * (kinds.index(kind) - len(kinds) / 2)  # so that no point hides another
        sizes = [row["radicals"] + shift for row in here]
        below = " or ".join(dict.fromkeys(NAMES.get(row["beside"].split(",")[0], row["beside"]) for row in here))
        ax.plot(
            sizes, [max(row["error of F"], 1e-12) for row in here], color=colour, marker=marker, linestyle="none",
            label=f"{NAMES.get(kind, kind)}\n  beside {below}",
        )  # fmt: skip
        sigmas = [(n, row["standard error of F"]) for n, row in zip(sizes, here, strict=True)]
        for n, sigma in sigmas:
            if sigma:
                ax.plot([n - 0.25, n + 0.25], [sigma, sigma], color=colour, linestyle="-", linewidth=1.5)
    ax.set(yscale="log", xlabel="radicals", ylabel="|difference of the fidelity|", ylim=(1e-12, 1))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="bars: standard error of sampling")
    ax.grid(True, alpha=0.4)
    return figure
