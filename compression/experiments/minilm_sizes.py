"""Whether file sizes fit the packaged MiniLM: found out before it is fine-tuned."""

from collections.abc import Sequence

from compression.quantization.plan import check_budget
from compression.quantization.rules import STAGES, preset_rules
from compression.training.ipq import IPQConfig, check_stages
from compression.training.models import minilm_skeleton


def check_sizes(
    block_sizes: Sequence[int],
    n_centroids: int,
    *,
    budgets: Sequence[str] = (),
    ipq: IPQConfig | None = None,
    stages: Sequence[str] = STAGES,
    key: str = "block_sizes",
) -> None:
    """Refuse sizes that an experiment with MiniLM could not make.

    Parameters
    ----------
    block_sizes, n_centroids
        The same for every layer of the preset rules.
    budgets
        Budgets in place of them, see `compression.compress`.
    ipq
        Its stages are those of the rules; not checked if ``None``.
    stages
        Stages of the preset rules.
    key
        What the message calls the block size.

    Raises
    ------
    ValueError
        If a block size does not divide the features of a layer, a stage is unknown, or no choice meets a budget.
    """
    skeleton = minilm_skeleton()
    config = IPQConfig(stages=tuple(stages)) if ipq is None else ipq
    for size in block_sizes:
        try:
            rules = preset_rules("roberta", block_size=size, n_centroids=n_centroids, stages=stages)
            check_stages(skeleton, rules, config)
        except ValueError as error:
            raise ValueError(str(error).replace("Key `block_size`", f"Key `{key}`")) from error
    for budget in budgets:
        try:
            check_budget(skeleton, budget)
        except ValueError as error:
            raise ValueError(str(error).replace("Argument `budget`", "Key `budgets`")) from error
