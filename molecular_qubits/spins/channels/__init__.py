"""Channels of the open system: what light, decay and the surroundings do to the spins."""
