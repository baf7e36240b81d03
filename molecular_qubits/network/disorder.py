"""Molecules that differ: exchange, g, intersystem crossing and dead couplers drawn from a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from molecular_qubits.network.addressing import doses
from shared.config import FrozenConfig

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork


class Disorder(FrozenConfig):
    """How much the molecules of a network differ.

    Parameters
    ----------
    j_relative
        Standard deviation of ln |J_on|, the same for every bond; the sign is kept.
    g
        Standard deviation of g.
    offset_mhz
        Standard deviation of the shift of a radical's resonance.
    isc_logit
        Standard deviation of ln(y / (1 - y)) of the yield y; yields of 1 stay.
    dead
        Probability that a coupler is dead.
    calibrated
        Whether each coupler has its own best hold and light; otherwise all keep those of the coupler before J and the
        yield were drawn.
    """

    j_relative: float = Field(0.0, ge=0)
    g: float = Field(0.0, ge=0)
    offset_mhz: float = Field(0.0, ge=0)
    isc_logit: float = Field(0.0, ge=0)
    dead: float = Field(0.0, ge=0, le=1)
    calibrated: bool = False


def draw(network: MolecularNetwork, disorder: Disorder, seed: int) -> MolecularNetwork:
    """Return one network of the ensemble.

    Each quantity has its own stream of random numbers, so that one more kind of disorder leaves the others as they are.

    Parameters
    ----------
    network
        The network without disorder; couplers dead there stay dead.
    disorder
        How much the molecules differ.
    seed
        Not negative.
    """
    if seed < 0:
        raise ValueError(f"Argument `seed` must not be negative, but was {seed}.")
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(5)]
    n, m = network.n_sites, len(network.bonds)
    g = disorder.g * streams[0].normal(size=n)
    offset = disorder.offset_mhz * streams[1].normal(size=n)
    factor = np.exp(disorder.j_relative * streams[2].normal(size=m))
    shift = np.exp(-disorder.isc_logit * streams[3].normal(size=m))
    light = None if disorder.calibrated else doses(network)
    alive = streams[4].random(size=m) >= disorder.dead
    sites = tuple(
        site.model_copy(update={"g": site.g + float(g[k]), "offset_mhz": site.offset_mhz + float(offset[k])})
        for k, site in enumerate(network.sites)
    )
    bonds = tuple(
        bond.model_copy(
            update={
                "hold_ns": bond.hold_ns if disorder.calibrated else network.hold_ns(k),
                "j_on_cm1": bond.j_on_cm1 * float(factor[k]),
                "isc_yield": bond.isc_yield / (bond.isc_yield + (1 - bond.isc_yield) * float(shift[k])),
                "dose": bond.dose if light is None else float(light[k]),
                "alive": bond.alive and bool(alive[k]),
            }
        )
        for k, bond in enumerate(network.bonds)
    )
    return type(network).build(network.model_copy(update={"sites": sites, "bonds": bonds}).model_dump())
