"""Time of the whole offline pipeline, from packaged weights and text to the compressed file and its scores."""
