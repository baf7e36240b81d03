"""Names of models and data: a local folder, or a name on the hub; and what to say when the hub does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from compression.training.packages import DataError

OFFLINE_PRESET = "minilm-rt"
"""The preset that needs no hub."""


def local_folder(source: str | Path, key: str) -> Path | None:
    """Return the folder that `source` names, or ``None`` if it is a name on the hub.

    Parameters
    ----------
    source
        A path or a name. It is a path if a folder of that name exists, or if it starts with ``/``, ``.`` or ``~``.
    key
        The setting that holds it, for the message.

    Raises
    ------
    ValueError
        If the path does not exist or is not a folder.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ValueError(f"Key `{key}` must name a folder or a name on the hub, but {str(source)!r} is a file.")
    if isinstance(source, Path) or str(source).startswith(("/", ".", "~")) or str(source).count("/") > 1:
        raise ValueError(f"Key `{key}` must name a folder or a name on the hub, but {str(source)!r} does not exist.")
    return None


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Let a block read names on the hub, or only what is cached of them where the hub does not answer.

    The clients of the hub would try again for half a minute, with a line for each try, before they say so.
    """
    from huggingface_hub import constants

    clients: list[Any] = [constants]
    with suppress(ModuleNotFoundError):
        from datasets import config

        clients.append(config)
    before = [client.HF_HUB_OFFLINE for client in clients]
    silent = not any(before) and not _hub_answers()
    for client in clients:
        client.HF_HUB_OFFLINE = client.HF_HUB_OFFLINE or silent
    try:
        yield
    finally:
        for client, value in zip(clients, before, strict=True):
            client.HF_HUB_OFFLINE = value


def _hub_answers() -> bool:
    """Whether anything answers where the hub should be."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE_S)
    except Exception as error:
        if any(kind.__name__ == "TransportError" for kind in type(error).__mro__):
            return False
        raise
    return True


def hub_error(kind: str, name: str, error: Exception, key: str) -> DataError | ValueError:
    """Return the error for a name that could not be read from the hub.

    Parameters
    ----------
    kind
        ``"model"`` or ``"data set"``.
    name
        Name on the hub.
    error
        What was raised.
    key
        What to change, for a name that the hub does not have.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    names = {type(link).__name__ for link in chain}
    if names & _ABSENT and not names & _UNREACHABLE:
        return ValueError(
            f"The hub has no {kind} {name!r} that can be read without signing in. Correct {key}, or name a local "
            "folder."
        )
    if not names & _UNREACHABLE:
        reason = " ".join(str(error).split())[:300]
        return ValueError(f"The {kind} {name!r} cannot be used ({reason}). Correct {key}, or name a local folder.")
    return DataError(
        f"The hub could not be reached for the {kind} {name!r}, and it is not in the local cache. Connect to a "
        f"network, name a local folder, or run the offline preset: `pg-ipq run --preset {OFFLINE_PRESET}`."
    )


_PATIENCE_S = 10.0

# By name: they belong to `huggingface_hub`, `httpx` and `datasets`, of which the last need not be installed.
_ABSENT = {"RepositoryNotFoundError", "GatedRepoError", "HFValidationError", "DatasetNotFoundError"}
_UNREACHABLE = {
    "ConnectError",
    "ConnectTimeout",
    "ConnectionError",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "ProxyError",
    "ReadTimeout",
}
