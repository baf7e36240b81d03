"""Tiny models, tokenizers and GLUE in the hub's own layout, written to local folders."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from compression.training.tasks import GLUE, Task

N_TRAIN, N_VALIDATION, N_TEST = 64, 24, 5
_GOOD, _BAD = ("bright", "warm", "fine", "kind"), ("grim", "cold", "dull", "cruel")
_FILLER = ("the", "day", "was", "said", "to", "be", "café", "a", "long", "story")
FAMILIES = ("roberta", "xlm-roberta", "bert", "mpnet", "distilbert")


def sentence(row: int, label: float) -> str:
    """Return a sentence from which the label can be told: so many good words, the rest bad."""
    generator = torch.Generator().manual_seed(row)
    picks = torch.randint(0, 4, (3,), generator=generator).tolist()
    words = [(_GOOD if number < label else _BAD)[pick] for number, pick in enumerate(picks)]
    filler = [_FILLER[i] for i in torch.randint(0, len(_FILLER), (row % 5,), generator=generator).tolist()]
    return " ".join([*filler, *words])


def rows(task: Task, split: str) -> dict[str, list]:
    """Return the columns of a split as the hub has them, labels of test splits hidden."""
    n = {"train": N_TRAIN, "test": N_TEST}.get(split.partition("_")[0], N_VALIDATION)
    start = 1000 * task.splits.index(split)
    labels = [(i % 11) / 2 if task.regression else i % task.num_labels for i in range(n)]
    top = 5 if task.regression else task.num_labels - 1
    columns: dict[str, list] = {
        key: [sentence(start + i + 500 * place, 3 * label / top) for i, label in enumerate(labels)]
        for place, key in enumerate(task.sentence_keys)
    }
    return columns | {"label": [-1] * n if split.startswith("test") else labels, "idx": list(range(n))}


def write_hub_glue(folder: Path, names=tuple(GLUE), *, readme: bool = True) -> Path:
    """Write tasks as the hub's ``nyu-mll/glue`` has them: README.md with configurations, parquet with label names."""
    from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars

    disable_progress_bars()
    lines = ["---", "configs:"]
    for task in (GLUE[name] for name in names):
        label = Value("float32") if task.regression else ClassLabel(names=list(task.label_names))
        texts = {key: Value("string") for key in task.sentence_keys}
        features = Features({**texts, "label": label, "idx": Value("int32")})
        (folder / task.name).mkdir(parents=True)
        lines += [f"- config_name: {task.name}", "  data_files:"]
        for split in task.splits:
            file = f"{task.name}/{split}-00000-of-00001.parquet"
            Dataset.from_dict(rows(task, split), features=features).to_parquet(folder / file)
            lines += [f"  - split: {split}", f"    path: {task.name}/{split}-*"]
    if readme:
        (folder / "README.md").write_text("\n".join([*lines, "---", "# GLUE", ""]))
    return folder


def _corpus() -> list[str]:
    return [sentence(row, row % 4) for row in range(200)] + ["Is it naïve? Yes, quite!"]


def byte_level_bpe() -> PreTrainedTokenizerFast:
    """Return a RoBERTa tokenizer with a vocabulary of 320 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return _wrapped(tokenizer, "<s>", "</s>", "<pad>", "<unk>", "<mask>", ["input_ids", "attention_mask"])


def wordpiece(special=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")) -> PreTrainedTokenizerFast:
    """Return a BERT tokenizer, which numbers the segments of pairs; MPNet's has RoBERTa's names for some tokens."""
    pad, unk, cls, sep, mask = special
    tokenizer = Tokenizer(models.WordPiece(unk_token=unk))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.post_processor = processors.BertProcessing((sep, 3), (cls, 2))
    return _wrapped(tokenizer, cls, sep, pad, unk, mask, ["input_ids", "token_type_ids", "attention_mask"])


def mpnet_wordpiece() -> PreTrainedTokenizerFast:
    """Return an MPNet tokenizer."""
    return wordpiece(("<pad>", "[UNK]", "<s>", "</s>", "<mask>"))


def unigram() -> PreTrainedTokenizerFast:
    """Return an XLM-R tokenizer: SentencePiece's unigram model as `tokenizers` JSON."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _wrapped(tokenizer, "<s>", "</s>", "<pad>", "<unk>", "<mask>", ["input_ids", "attention_mask"])


def _wrapped(tokenizer, cls, sep, pad, unk, mask, inputs) -> PreTrainedTokenizerFast:
    special = {"cls_token": cls, "sep_token": sep, "pad_token": pad, "unk_token": unk, "mask_token": mask}
    if cls == "<s>":
        special |= {"bos_token": cls, "eos_token": sep}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **special)


TOKENIZERS = {
    "roberta": byte_level_bpe,
    "xlm-roberta": unigram,
    "bert": wordpiece,
    "mpnet": mpnet_wordpiece,
    "distilbert": wordpiece,
    "electra": wordpiece,
    "modernbert": byte_level_bpe,
}


def tiny_config(family: str, tokenizer, **extra):
    """Return the configuration of a 2-layer encoder of width 32 in its family's own terms."""
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if family == "distilbert":
        sizes = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64}
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"max_position_embeddings": 64}
    if family in ("roberta", "xlm-roberta"):
        sizes |= {"type_vocab_size": 1}
    return AutoConfig.for_model(family, **common | sizes | {"initializer_range": 0.2} | extra)


def write_model(folder: Path, family: str = "roberta", *, head: bool = False, **extra) -> Path:
    """Write a random encoder as on the hub, with a head if `head`; `tokenizers` JSON beside a bare configuration.

    Without a head those of the RoBERTa families are masked language models, as ``roberta-base`` and
    ``xlm-roberta-base`` are, the others bare encoders.
    """
    tokenizer = TOKENIZERS[family]()
    config = tiny_config(family, tokenizer, **extra)
    masked = not head and family in ("roberta", "xlm-roberta")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = (AutoModelForMaskedLM if masked else AutoModelForSequenceClassification).from_config(config)
    (model if head or masked else model.base_model).save_pretrained(folder)
    if masked:  # a buffer that older versions of `transformers` saved
        tensors = load_file(folder / "model.safetensors")
        tensors["roberta.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 62}')
    return folder
