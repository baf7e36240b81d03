"""The molecules of a network: radicals that hold the qubits, couplers that light switches on.

Every default is an assumption that can be set; where one was measured the source is named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from shared.config import FrozenConfig


class Radical(FrozenConfig):
    """A spin 1/2.

    Parameters
    ----------
    molecule
        Kind of molecule; a name for figures and tables.
    g
        Effective g factor along the field, the molecule's orientation included. The default is the measured one of the
        iminonitroxide quartet and quintet (Teki et al., JACS 2000, 122, 984).
    t1_ns, t2_ns
        Relaxation times; T2 at most 2 T1. The default T2 is that measured in tpPDI-BDPA-d16, 2.1 us.
    """

    molecule: str = "iminonitroxide"
    g: float = Field(2.0043, gt=0)
    t1_ns: float = Field(1e5, gt=0)
    t2_ns: float = Field(2.1e3, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.t2_ns > 2 * self.t1_ns * (1 + 1e-12):
            raise ValueError(f"t2_ns must be at most 2 T1 = {2 * self.t1_ns:g} ns, but was {self.t2_ns:g} ns")
        return self


class Coupler(FrozenConfig):
    """A chromophore whose triplet couples the two radicals beside it.

    Parameters
    ----------
    molecule
        Kind of molecule; a name for figures and tables.
    j_on_cm1
        Exchange of each radical with the triplet, H = -2 J S_R.S_T. The default beats well with the default splitting
        for a CZ; in directly bound phenyl-anthracenes J is about 100 cm^-1, for which no light pulse is short enough.
    j_off_cm1
        Exchange of the two radicals through the dark coupler (in ground-state C60 bis-nitroxides below 5 MHz,
        1.7e-4 cm^-1). It never rests: at that bound it detunes a radical by 5 MHz while a pulse of 40 ns turns it, and
        four pulses by pi, which should leave <Z> at 1, leave it at 0.6.
    d_t_cm1, share_z, jitter_ns
        Zero-field splitting of the triplet, share of Tz at its birth, and standard deviation of the time for which it
        is present; see `molecular_qubits.GateConditions`.
    hold_ns
        Time for which the triplet is present in a gate; ``None``: the best one for these values, computed.
    isc_yield
        Probability that an excited coupler ends in its triplet (0.7 in anthracene, S. L. Murov et al., Handbook of
        Photochemistry; near 1 where a radical catalyses the crossing).
    dose
        Mean number of absorptions that its pulse makes, if it could not be used up; ``None``: what
        `Optics.triplet_probability` takes, or 99.5 % of the largest probability where that is less.
    isc_time_ns
        Lifetime of the excited singlet. The default, 100 fs, is about what the fastest crossings show; a slower one
        makes the birth of the triplet, and so the gate, uncertain in time.
    triplet_lifetime_ns
        Of the triplet's own decay; ``None``: it lasts until it is switched off.
    absorption_nm, linewidth_cm1
        Origin of the absorption (``None``: chosen so that light tells couplers apart) and full width at half maximum of
        its (Gaussian) lines: some hundred cm^-1 in a glass, far less in a crystal, but not less than the bandwidth
        53 cm^-1 that a lifetime of 100 fs leaves.
    extinction_per_m_cm
        Molar extinction coefficient at the origin, L / (mol cm), for light of the best polarisation.
    huang_rhys, vibration_cm1
        Strength and spacing of a vibrational progression above the origin; 0: the origin alone.
    quench_nm, quench_extinction_per_m_cm
        Where the triplet absorbs the light that quenches it, and how strongly (assumed; triplet anthracene absorbs near
        420 nm).
    """

    molecule: str = "anthracene derivative"
    j_on_cm1: float = 0.24
    j_off_cm1: float = 0.0
    d_t_cm1: float = 0.07
    share_z: float = Field(1.0, ge=0, le=1)
    jitter_ns: float = Field(2e-4, ge=0)
    hold_ns: float | None = Field(None, gt=0)
    isc_yield: float = Field(0.98, gt=0, le=1)
    dose: float | None = Field(None, gt=0)
    isc_time_ns: float = Field(1e-4, gt=0)
    triplet_lifetime_ns: float | None = Field(None, gt=0)
    absorption_nm: float | None = Field(None, gt=0)
    linewidth_cm1: float = Field(200.0, gt=0)
    extinction_per_m_cm: float = Field(1e4, gt=0)
    huang_rhys: float = Field(0.0, ge=0)
    vibration_cm1: float = Field(1400.0, gt=0)
    quench_nm: float = Field(420.0, gt=0)
    quench_extinction_per_m_cm: float = Field(5e4, gt=0)

    @classmethod
    def from_exchange(cls, path: str | Path, **values: Any) -> Coupler:
        """Return a coupler with the J of a result file of ``molecular-qubits exchange``.

        Its error is left out: a gate's hold is made for the J that the molecule has, and how much molecules differ is
        `molecular_qubits.Disorder`.

        Parameters
        ----------
        path
            The file.
        **values
            The other fields.

        Raises
        ------
        ValueError
            If there is no such file, or it has no pair of a radical and a triplet.
        """
        from molecular_qubits.electronic.exchange import ExchangeResult
        from molecular_qubits.electronic.uncertainty import radical_triplet_exchange

        path = Path(path)
        if not path.is_file():
            raise ValueError(f"Argument `path` must name a result file, but there is no file {str(path)!r}.")
        found = radical_triplet_exchange(ExchangeResult.from_json(path))
        return cls.build({"j_on_cm1": found["j_on_cm1"]} | values)


class Preparation(FrozenConfig):
    """How the radicals are initialised.

    Parameters
    ----------
    method
        ``"thermal"``: the polarisation tanh(h f / 2 k T) of each radical at the network's temperature;
        ``"spin-polarised"``: `polarisation`, e.g. from the decay of an excited multiplet or from chirality-induced spin
        selectivity.
    polarisation
        p0 - p1 of a spin-polarised start, between 0 and 1.
    """

    method: Literal["thermal", "spin-polarised"] = "spin-polarised"
    polarisation: float = Field(0.9, ge=0, le=1)


class Readout(FrozenConfig):
    """How the radicals are read: optically (detected resonance) or electrically (spin-dependent current).

    Parameters
    ----------
    fidelity_0, fidelity_1
        Probability to report 0 of |0>, and 1 of |1>.
    duration_ns
        Length of a readout.
    """

    fidelity_0: float = Field(0.98, ge=0.5, le=1)
    fidelity_1: float = Field(0.98, ge=0.5, le=1)
    duration_ns: float = Field(500.0, ge=0)

    @property
    def fidelity(self) -> float:
        """Mean probability of a right answer."""
        return (self.fidelity_0 + self.fidelity_1) / 2


class Microwaves(FrozenConfig):
    """The drive that rotates the radicals, by Gaussian pulses.

    Parameters
    ----------
    addressing
        ``"frequency"``: one field for all radicals, told apart by their resonance; ``"local"``: each has its own, e.g.
        from the tip of a scanning microscope.
    rabi_mhz
        Largest Rabi frequency, which sets the shortest pulse.
    crosstalk_limit
        Largest probability with which a pulse by pi may flip the radical nearest in frequency. Pulses are made longer
        to keep it; radicals that are too near for a pulse of the largest Rabi frequency `slowest_mhz` cannot be told
        apart.
    slowest_mhz
        See above.
    tones
        How many frequencies can be driven at once; ``None``: any number.
    """

    addressing: Literal["frequency", "local"] = "frequency"
    rabi_mhz: float = Field(25.0, gt=0)
    crosstalk_limit: float = Field(0.01, gt=0, lt=1)
    slowest_mhz: float = Field(0.5, gt=0)
    tones: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.slowest_mhz > self.rabi_mhz:
            raise ValueError(f"slowest_mhz must be at most rabi_mhz = {self.rabi_mhz:g}, but was {self.slowest_mhz:g}")
        return self
