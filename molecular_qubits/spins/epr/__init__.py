"""Electron paramagnetic resonance: orientations of a powder, resonance fields, spectra and nutation."""
