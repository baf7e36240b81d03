"""Screening of molecules for the processor: a table of fragments to a ranked list of candidates."""
