"""Where the weights of a run come from, for the model card."""

from collections.abc import Mapping

from compression.quantization.folder import Source
from compression.training.classifiers import PACKAGED_MODELS, ModelSource
from compression.training.packages import PACKAGES
from compression.training.sources import local_folder


def origin(
    source: ModelSource,
    *,
    sha256: Mapping[str, str] | None = None,
    task: str | None = None,
    seeds: Mapping[str, int] | None = None,
) -> Source:
    """Return what a model card says of a model that has been found.

    Parameters
    ----------
    source
        The model.
    sha256
        SHA-256 of other files than its own, such as that of the fine-tuned weights, by what they are.
    task, seeds
        See `compression.quantization.folder.Source`.
    """
    if source.name in PACKAGED_MODELS:
        own = {file.filename: file.sha256 for file in PACKAGES[source.name]}
    else:
        own = {name: digest for name, digest in source.weights.items() if name.endswith(".safetensors")}
    return Source(
        source.name,
        on_hub=source.name not in PACKAGED_MODELS and local_folder(source.name, "model") is None,
        revision=source.weights.get("commit"),
        sha256=own | dict(sha256 or {}),
        task=task,
        seeds=dict(seeds or {}),
    )
