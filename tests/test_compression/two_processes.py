"""A script in two processes, as torchrun starts them."""

import os
import subprocess
import sys
from pathlib import Path


def run_by_two(script: str, folder: Path) -> None:
    """Run the text of a script with a folder as its argument in two processes, and check that both did their work.

    PyTorch's gloo once in about a hundred runs aborts a process that leaves, after all is written.
    """
    path, here = folder / "script.py", Path(__file__).parent
    path.write_text(script)
    paths = os.pathsep.join([str(here), str(here.parents[1])])
    environment = os.environ | {"PYTHONPATH": paths, "PROGRESS": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(path)]
    done = subprocess.run([*command, str(folder)], env=environment, capture_output=True, text=True, timeout=300)
    left_badly = "terminate called without an active exception" in done.stderr
    assert done.returncode == 0 or left_badly, done.stderr[-3000:]
