"""Quant-Noise inside `transformers.Trainer`."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from compression.quantization.blocks import PQConfig
from compression.quantization.quant_noise import NoiseConfig, QuantNoise, add_quant_noise, remove_quant_noise
from compression.quantization.rules import Rule, as_rules, match_rules


class QuantNoiseCallback(TrainerCallback):
    """Put Quant-Noise on the trainer's model when training begins and take it off when it ends.

    Every optimizer step has its noise, a function of the seed and the step's number. Evaluation, prediction and saved
    checkpoints are those of the model without noise. After each checkpoint the codebooks of exact noise are made anew,
    so that a run that is resumed from one ends as a run that went on. Noise that an interrupted `Trainer.train` left on
    the model is taken off when it is trained again; call `compression.remove_quant_noise` to use it without.

    Parameters
    ----------
    rules, config
        As for `compression.add_quant_noise`.
    model
        If given, the rules are checked against it at once, before any training.

    Raises
    ------
    ValueError
        See `compression.add_quant_noise`.
    """

    def __init__(
        self,
        rules: Sequence[Rule] | Mapping[str, PQConfig],
        config: NoiseConfig | None = None,
        model: nn.Module | None = None,
    ) -> None:
        self.rules = as_rules(rules)
        self.config = NoiseConfig.of(config)
        if model is not None:
            match_rules(model, self.rules)
        self.noise: QuantNoise | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the noise on, in place of what an interrupted training left."""
        remove_quant_noise(kwargs["model"])
        self.noise = add_quant_noise(kwargs["model"], self.rules, self.config)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the noise of an optimizer step; its micro-batches share it."""
        assert self.noise is not None
        self.noise.step(state.global_step, state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Let the codebooks be made anew from the weights that were saved."""
        if self.noise is not None:
            self.noise.expire()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the noise off."""
        if self.noise is not None:
            self.noise.remove()
            self.noise = None
