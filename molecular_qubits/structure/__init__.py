"""Molecules, their geometries and their torsions."""
