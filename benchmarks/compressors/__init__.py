"""Accuracy and size of other compressors on the fp32 models of a study."""
