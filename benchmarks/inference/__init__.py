"""A compressed model's forward pass beside the dense one's, in time and in resident memory."""
