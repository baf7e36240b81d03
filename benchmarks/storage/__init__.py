"""What entropy coding of the codes would save."""
