"""Fine-tuning of a sequence classifier on labelled sentences, and the cached fp32 model of the experiments."""

import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import load_model, save_model
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from compression.quantization.files import state_digest
from compression.quantization.quant_noise import QuantNoise
from compression.training.averaging import RunningAverage
from compression.training.batches import EncodedData, encode, training_batches
from compression.training.data import TextData, load_sentiment
from compression.training.distributed import shard
from compression.training.evaluate import Evaluation, evaluate
from compression.training.loop import run_steps
from compression.training.losses import check_labels, label_loss
from compression.training.models import load_minilm_roberta, load_minilm_tokenizer
from compression.training.packages import PACKAGES
from compression.training.precision import Precision, autocast
from shared.artifacts import Cache, content_hash, provenance, versions, write_json
from shared.config import FrozenConfig
from shared.progress import say


class FinetuneConfig(FrozenConfig):
    """How to fine-tune.

    Parameters
    ----------
    epochs, batch_size, lr, warmup_fraction, weight_decay, max_grad_norm
        AdamW with linear warm-up and decay.
    max_length
        Longest token sequence; longer sentences are cut.
    seed
        Of the head's initial weights, of the order of the sentences and of dropout.
    average_from
        The result is the mean of the weights in every tenth step from this part of the steps on: 0.5 takes the second
        half; 1 takes the last weights alone. See `compression.training.averaging`.
    precision
        Of the matrix products, see `compression.training.precision.Precision`.
    checkpoint_every
        Steps between two checkpoints.
    """

    epochs: int = Field(1, ge=1)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(1e-4, gt=0)
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    max_length: int = Field(64, ge=4, le=512)
    seed: int = Field(0, ge=0)
    average_from: float = Field(1.0, ge=0, le=1)
    precision: Precision = "float32"
    checkpoint_every: int = Field(50, ge=1)


def finetune(
    model: nn.Module,
    data: EncodedData,
    config: FinetuneConfig | None = None,
    *,
    noise: QuantNoise | None = None,
    checkpoint: Path | None = None,
    description: str = "Fine-tuning",
) -> list[float]:
    """Fine-tune all parameters of a sequence classifier in place, see `compression.training.losses.label_loss`.

    The result is a function of the arguments alone (on one machine with one number of threads), whether the run was
    interrupted or not. The model is left in evaluation mode.

    Parameters
    ----------
    model
        A sequence classifier of the `transformers` kind.
    data
        Token sequences and labels.
    config
        Settings; the defaults if ``None``.
    noise
        Quant-Noise that `compression.add_quant_noise` put on `model`; it is drawn anew for each step.
    checkpoint
        File for the state of an unfinished run, read if it is there and of a run with the same arguments; ``None`` for
        no checkpoints.
    description
        Shown with the progress.

    Returns
    -------
    list of float
        The loss of each step.

    Raises
    ------
    ValueError
        If a label has no output of the model.
    """
    config = config or FinetuneConfig()
    check_labels(data.labels, model)
    n_steps = config.epochs * -(-len(data) // config.batch_size)
    batches = training_batches(data.lengths, config.batch_size, n_steps, config.seed)
    device = next(model.parameters()).device
    model.train()

    def loss(step: int) -> torch.Tensor:
        rows, factor = shard(batches[step])
        with autocast(config.precision, device):
            logits = model(**data.batch(rows, device)).logits
        return factor * label_loss(logits.float(), data.labels[rows].to(device))

    key = ""
    if checkpoint is not None:
        parts = [json.loads(config.to_json()), data.sha256, state_digest(model.state_dict())]
        key = content_hash(parts if noise is None else [*parts, noise.identity])
    parameters = dict(model.named_parameters())
    average = RunningAverage(parameters, config.average_from, n_steps)

    def before_step(step: int) -> None:
        average.take(step)
        if noise is not None:
            noise.step(step, n_steps)

    try:
        losses = run_steps(
            parameters,
            loss,
            n_steps,
            lr=config.lr,
            weight_decay=config.weight_decay,
            warmup_fraction=config.warmup_fraction,
            max_grad_norm=config.max_grad_norm,
            seed=config.seed,
            buffers=average.buffers | ({} if noise is None else dict(noise.buffers)),
            before_step=before_step,
            checkpoint=checkpoint,
            checkpoint_every=config.checkpoint_every,
            key=key,
            description=description,
        )
        average.finish()
        return losses
    finally:
        model.eval()


@dataclass(frozen=True)
class FinetunedModel:
    """The fp32 model of the experiments with its data.

    Parameters
    ----------
    model
        In evaluation mode; a new object at each load.
    tokenizer
        Its tokenizer.
    train, validation
        Token sequences and labels.
    folder
        Where model and tokenizer lie, in the format of `transformers`.
    report
        Loss of each step, seconds, provenance.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    train: EncodedData
    validation: EncodedData
    folder: Path
    report: dict[str, object]

    def evaluate(self) -> Evaluation:
        """Return the predictions of the model on the validation sentences."""
        return evaluate(self.model, self.validation, description="Evaluating fp32")


def finetuned_minilm(
    config: FinetuneConfig | None = None,
    *,
    data: tuple[TextData, TextData] | None = None,
    folder: str | Path | None = None,
) -> FinetunedModel:
    """Return the MiniLM classifier fine-tuned on sentiment, trained on first use and then read from the cache.

    Parameters
    ----------
    config
        Settings; the defaults if ``None``.
    data
        Training and validation part; `load_sentiment` if ``None``.
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Returns
    -------
    FinetunedModel
        The model with its tokenizer and encoded data.

    Raises
    ------
    DataError
        If the data have not been fetched.

    Notes
    -----
    An interrupted training continues from its last checkpoint. The cache key holds the settings, the SHA-256 of the
    training tokens and of the weights' package, and the versions of PyTorch and transformers.
    """
    config = config or FinetuneConfig()
    tokenizer = load_minilm_tokenizer(folder)
    train, validation = (encode(part, tokenizer, config.max_length) for part in data or load_sentiment(folder))
    num_labels = int(max(train.labels.max(), validation.labels.max())) + 1
    cache = Cache(folder, name="finetuned")
    key = {
        "config": json.loads(config.to_json()),
        "num_labels": num_labels,
        "data": train.sha256,
        "weights": [file.sha256 for file in PACKAGES["minilm"]],
        "versions": versions(("torch", "transformers")),
    }

    def make(target: Path) -> None:
        start = time.monotonic()
        say(f"Fine-tuning MiniLM in the RoBERTa architecture on {train.name} ({len(train)} sentences).")
        model = load_minilm_roberta(num_labels, config.seed, folder)
        losses = finetune(model, train, config, checkpoint=cache.work_folder(key) / "state.safetensors")
        save_classifier(model, target)
        tokenizer.save_pretrained(target)
        seconds = time.monotonic() - start
        write_json(target / "report.json", {"losses": losses, "provenance": provenance(config, seconds)})

    target = cache.get_or_make(key, make)
    report = json.loads((target / "report.json").read_text(encoding="utf-8"))
    return FinetunedModel(load_classifier(target), tokenizer, train, validation, target, report)


def save_classifier(model: PreTrainedModel, folder: str | Path) -> None:
    """Write configuration and weights as ``save_pretrained`` does, tied ones once, without its progress bars."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]  # not that of the encoder it was made from: there is a head now
    config.save_pretrained(folder)
    save_model(model, str(Path(folder) / "model.safetensors"), metadata={"format": "pt"})


def load_classifier(folder: str | Path) -> PreTrainedModel:
    """Return a classifier from a folder that `save_classifier` or ``save_pretrained`` wrote, in evaluation mode.

    PyTorch's global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder))
    load_model(model, Path(folder) / "model.safetensors")
    return model.eval()
