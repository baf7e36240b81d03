"""A high-spin and broken-symmetry pair beside a plain PySCF script for the same pair."""
