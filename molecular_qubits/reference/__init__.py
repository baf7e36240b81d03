"""Reference values from experiment and independent calculations, each file with its source."""
