"""One thread for each library unless told otherwise: two test processes share the cores, and sums keep their order."""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
