"""Trains one network with any method of keras_gbr and measures the result.

    python examples/train.py                                    # the digits, in a minute
    python examples/train.py --data cifar10 --network resnet20 --epochs 60 \\
        --method enc --set per_filter=true --penalty jacobian:0.01,interval=8
    python examples/train.py --config results/train/digits-resnet8-1/config.yaml
    python examples/train.py --output results/train/digits-resnet8-1 --resume

The folder --output gets config.yaml; log.csv and checkpoint.npz after each epoch; model.keras,
with plain Keras layers, and result.json at the end. Exit status: 0; 3 if the loss became infinite
or NaN; 1 after an error.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.tools import quiet_imports, write_whole
from recipes import config as settings
from recipes.config import Config

DIVERGED = 3
RESULT = "result.json"
SMOKE = {"epochs": 2, "samples": 128, "batch_size": 32, "attacked": 32, "pgd_steps": 2}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    settings.add_options(parser)
    add = parser.add_argument
    add("--config", type=Path, help="file with settings; options on the command line go first")
    add("--output", type=Path, help="folder of the run (default: a new one in results/train)")
    add("--resume", action="store_true", help="go on in --output, or begin if nothing is there")
    add("--tensorboard", action="store_true", help="write logs for TensorBoard too")
    add("--quiet", action="store_true", help="print the result only")
    add("--smoke", action="store_true", help="two epochs on few images: only a test")
    options = parser.parse_args(argv)
    if options.resume and not options.output:
        parser.error("argument --resume: needs --output, the folder of the run")
    if options.smoke:
        for name, value in SMOKE.items():
            setattr(options, name, getattr(options, name, value))
    return options


def chosen(options: argparse.Namespace) -> tuple[Config, Path]:
    """The settings and the folder of the run.

    Raises:
        ValueError: A setting is wrong, or the folder has another run.
    """
    folder, file = options.output, options.config
    if folder is None:
        config = settings.from_options(options, file)
        return config, _new_folder(Path("results/train"), config)
    before = folder / "config.yaml"
    if not before.exists():
        return settings.from_options(options, file), folder
    if not options.resume:
        raise ValueError(f"{folder} has a run. Go on with --resume, or give another --output")
    old = Config(**settings.read(before))
    config = settings.from_options(options, file or before)
    if config != old:
        differing = [name for name, v in config.as_dict().items() if v != old.as_dict()[name]]
        raise ValueError(
            f"{folder} has a run with other settings. Give another --output. Received: another "
            f"{', '.join(differing)}"
        )
    return config, folder


def _new_folder(parent: Path, config: Config) -> Path:
    name = f"{Path(config.data).stem}-{config.network}"
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    with quiet_imports(__file__):
        from recipes.callbacks import DivergedError
        from recipes.run import Run
    try:
        config, folder = chosen(options)
        if (folder / RESULT).exists():
            result = json.loads((folder / RESULT).read_text())
        else:
            run = Run(config, folder, options)
            result = _result(run.result, config, DivergedError)
            if not run.devices.is_chief:
                return  # The chief has the same, and writes it.
            text = json.dumps(result, indent=2) + "\n"
            write_whole(folder / RESULT, lambda path: Path(path).write_text(text))
    except (OSError, ValueError) as error:
        raise SystemExit(f"train.py: error: {error}") from None
    _print(result, folder)
    if result["status"] == "diverged":
        sys.exit(DIVERGED)


def _result(run: Callable[[], dict], config: Config, diverged: type[Exception]) -> dict[str, Any]:
    try:
        return run()
    except diverged as error:
        return {"status": "diverged", "message": str(error), "config": config.as_dict()}


def _print(result: dict[str, Any], folder: Path) -> None:
    if result["status"] == "diverged":
        print(f"train.py: {result['message']}. Try a smaller learning rate. Files: {folder}")
        return
    shown = [
        ("accuracy on the test images", f"{100 * result['test_accuracy']:.2f} %"),
        ("train-test gap", f"{100 * result['gap']:.2f} points"),
        ("GBR of logits", f"{result['gbr']:.3g} ±{result['gbr_standard_error']:.2g}"),
        ("GBR of probabilities", f"{result['gbr_probabilities']:.3g}"),
        (
            f"accuracy under FGSM, epsilon {result['fgsm_epsilon']:.3g}",
            f"{100 * result['fgsm_accuracy']:.1f} % ({result['fgsm_by']})",
        ),
        ("images a second", f"{result['images_per_second']:.0f}"),
        ("seconds of compilation", f"{result['compilation_seconds']:.1f}"),
        ("peak memory", f"{result['peak_memory_bytes'] / 2**20:.0f} MiB"),
    ]
    if result["pgd_accuracy"] is not None:
        text = f"accuracy under PGD, epsilon {result['pgd_epsilon']:.3g}"
        shown.insert(5, (text, f"{100 * result['pgd_accuracy']:.1f} %"))
    width = max(len(name) for name, _ in shown)
    print("\n".join(f"{name:{width}}  {value}" for name, value in shown))
    print(f"Files: {folder}")


if __name__ == "__main__":
    main()
