"""Quant-Noise through `transformers.Trainer` on a tiny RoBERTa: clean checkpoints and evaluation, resumed runs."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils import parametrize

from compression import NoiseConfig, PQConfig, preset_rules
from compression.training.noise_callback import QuantNoiseCallback
from tests.test_compression.two_processes import run_by_two

pytest.importorskip("accelerate", reason="transformers.Trainer needs the extra `trainer`")
transformers = pytest.importorskip("transformers")

RULES = preset_rules("roberta", block_size=4, n_centroids=16)


class Rows(torch.utils.data.Dataset):
    """Tiny sequences padded to the same length."""

    def __init__(self, data):
        self.inputs, self.labels = data.batch(range(len(data))), data.labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {name: tensor[index] for name, tensor in self.inputs.items()} | {"labels": self.labels[index]}


class Watch(transformers.TrainerCallback):
    """Note losses, and whether the model that is evaluated is the dense one."""

    def __init__(self):
        self.losses, self.clean = {}, []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses[state.global_step] = logs["loss"]

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        weight = model.roberta.encoder.layer[0].output.dense.weight
        self.clean.append(isinstance(weight, torch.nn.Parameter))


def trainer(model, data, folder, kind, *more, **options):
    watch = Watch()
    settings = {"max_steps": 6, "save_steps": 4, "eval_steps": 3, "eval_strategy": "steps"} | options
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **settings,
    )
    noise = QuantNoiseCallback(RULES, NoiseConfig(kind=kind, p=0.5, refresh_every=3), model)
    rows = Rows(data)
    made = transformers.Trainer(
        model, arguments, train_dataset=rows, eval_dataset=rows, callbacks=[noise, watch, *more]
    )
    return made, watch


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", ["proxy", "pq", "int8"])
def test_a_run_is_noisy_and_what_it_saves_is_not(kind, tiny_roberta, tiny_data, tmp_path):
    model = tiny_roberta(0)
    made, watch = trainer(model, tiny_data, tmp_path / "whole", kind)
    made.train()
    assert watch.clean == [True, True]
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    saved = load_file(tmp_path / "whole" / "checkpoint-4" / "model.safetensors")
    assert saved.keys() == model.state_dict().keys()
    loaded = type(model).from_pretrained(tmp_path / "whole" / "checkpoint-6")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    plain = tiny_roberta(0)
    free, other = trainer(plain, tiny_data, tmp_path / "plain", kind)
    free.remove_callback(QuantNoiseCallback)
    free.train()
    assert other.losses[1] != watch.losses[1]
    resumed = tiny_roberta(3)
    again, seen = trainer(resumed, tiny_data, tmp_path / "whole", kind)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert {step: watch.losses[step] for step in (5, 6)} == {step: seen.losses[step] for step in (5, 6)}
    for name, tensor in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_best_model_accumulation_and_checkpointing(tiny_roberta, tiny_data, tmp_path):
    model = tiny_roberta(0)
    options = {"load_best_model_at_end": True, "save_steps": 3, "gradient_accumulation_steps": 2}
    made, watch = trainer(model, tiny_data, tmp_path, "pq", gradient_checkpointing=True, **options)
    made.train()
    best = load_file(f"{made.state.best_model_checkpoint}/model.safetensors")
    assert all(torch.equal(best[name], tensor) for name, tensor in model.state_dict().items())
    assert len(watch.losses) == 6


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_training_goes_on_after_an_interruption(tiny_roberta, tiny_data, tmp_path):
    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    model = tiny_roberta(0)
    made, watch = trainer(model, tiny_data, tmp_path, "pq", Stop(), max_steps=2)
    with pytest.raises(KeyboardInterrupt):
        made.train()
    assert any(parametrize.is_parametrized(module) for module in model.modules())
    made.remove_callback(Stop)
    made.train()
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    assert watch.losses.keys() == {1, 2}


BY_TWO = """
import json, sys, warnings
from pathlib import Path

warnings.simplefilter("ignore")
import torch
import torch.distributed
from conftest import make_tiny_data, make_tiny_roberta
from tests.test_compression.test_noise_callback import trainer

folder = Path(sys.argv[1])
for checkpointing in (False, True):
    model = make_tiny_roberta(0)
    options = {"save_strategy": "no", "eval_strategy": "no", "ddp_backend": "gloo", "max_steps": 2}
    made, watch = trainer(
        model, make_tiny_data(), folder, "proxy", gradient_checkpointing=checkpointing, **options
    )
    made.train()
    rank = torch.distributed.get_rank()
    state = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    (folder / f"{int(checkpointing)}-{rank}.json").write_text(json.dumps(state))
"""


@pytest.mark.slow
def test_two_processes_of_a_trainer_keep_the_same_weights(tmp_path):
    run_by_two(BY_TWO, tmp_path)
    plain, checkpointed = ([(tmp_path / f"{kind}-{number}.json").read_text() for number in (0, 1)] for kind in (0, 1))
    assert plain[0] == plain[1]
    assert checkpointed[0] == checkpointed[1]


def test_rules_are_checked_at_once(tiny_roberta):
    with pytest.raises(ValueError, match="matches no linear layer"):
        QuantNoiseCallback({"nothing": PQConfig()}, model=tiny_roberta(0))
