"""Configuration, artifacts, results, plotting, progress and parallel runs used by both packages."""
