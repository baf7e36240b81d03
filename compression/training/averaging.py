"""Average of the weights along a training run."""

from collections.abc import Mapping

import torch

AVERAGE_EVERY = 10
"""Steps between two weights of an average."""


class RunningAverage:
    """Mean of parameters over every `AVERAGE_EVERY`-th step, counted back from the last.

    Parameters
    ----------
    parameters
        What is trained, by name.
    start
        Part of the steps that is left out, as the untrained weights always are; with 1 the parameters stay as the last
        step leaves them.
    n_steps
        Number of steps.

    Notes
    -----
    The mean is in ``buffers``, for the checkpoints of a run. Source: Izmailov et al., arXiv:1803.05407.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], start: float, n_steps: int) -> None:
        self._parameters = parameters
        self._steps = range(n_steps, max(int(start * n_steps), 1) - 1, -AVERAGE_EVERY)[::-1]
        several = len(self._steps) > 1
        self.buffers = {f"average:{name}": value.detach().clone() for name, value in parameters.items() if several}

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Take the parameters, as they are after `step` steps, into the mean if the step belongs to it."""
        if self.buffers and step in self._steps:
            share = 1 / (1 + self._steps.index(step))
            for name, value in self._parameters.items():
                self.buffers[f"average:{name}"].lerp_(value.detach(), share)

    @torch.no_grad()
    def finish(self) -> None:
        """Take the last parameters, and set all to the mean."""
        self.take(self._steps[-1])
        for name, mean in self.buffers.items():
            self._parameters[name.removeprefix("average:")].copy_(mean)
