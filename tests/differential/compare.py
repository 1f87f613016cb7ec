"""Runs random programs under TensorFlow, JAX and PyTorch, and compares logs and weights.

    PYTHONPATH=tests python tests/differential/compare.py --seeds 1000:2000 --folder FOLDER
    PYTHONPATH=tests python tests/differential/compare.py --seeds 0:100 --replicas
    PYTHONPATH=tests python tests/differential/compare.py --seeds 17 --show

A program trains a model for two steps from weights that are the same everywhere, in double
precision. The logs of each step and the change of every weight must be the same, to the tolerance
of the program, and the same programs must be refused. With `--replicas` TensorFlow runs each on one
replica and on two. With `--folder` the results are kept: the same command resumes where it was
stopped, and skips what it finds there. Remove the folder after a change of the package.
"""

import argparse
import importlib.util
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading

import numpy as np
from programs import program

HERE = pathlib.Path(__file__).parent
BACKENDS = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
REPLICAS = ["1 replicas", "2 replicas"]
# Programs that run in one process: TensorFlow and JAX keep what they have compiled.
CHUNK = 20
# With XLA's optimizations at level 0, JAX compiles programs in less than half the time, but the
# second derivative of a maximum over places behind batch normalisation is NaN.
QUICK = {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"}
WHOLE = {"XLA_FLAGS": ""}


def main():
    options = _options()
    if options.show:
        print(*(program(seed, options.replicas).source for seed in options.seeds), sep="\n\n")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        verdicts = compare(folder, options.seeds, options.backends, options.replicas, options.jobs)
    print(report(verdicts, options.replicas, options.sources))
    return int(any(verdict.failed for verdict in verdicts))


def _options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=_seeds, required=True, help="1000:2000, or 3,17,40")
    parser.add_argument("--folder", type=pathlib.Path, help="keeps the results, to go on later")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--replicas", action="store_true", help="one and two replicas instead")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--show", action="store_true", help="print the programs, run nothing")
    parser.add_argument("--sources", type=int, default=5, help="programs to print of failures")
    return parser.parse_args()


def _seeds(text):
    if ":" in text:
        return range(*map(int, text.split(":")))
    return [int(seed) for seed in text.split(",")]


def compare(folder, seeds, backends=BACKENDS, replicas=False, jobs=2):
    """Runs the programs whose results are not there yet, and compares them.

    A disagreement counts only if it remains with all of XLA's optimizations.

    Args:
        folder: Where the results go.
        seeds: Numbers of the programs.
        backends: Names of backends.
        replicas: Whether TensorFlow runs each on one and on two replicas instead.
        jobs: How many processes run at once.

    Returns:
        A `Verdict` for each seed.
    """
    names = REPLICAS if replicas else backends
    run(folder, seeds, backends, replicas, jobs, QUICK)
    verdicts = {seed: judge(folder, seed, names, replicas) for seed in seeds}
    again = [seed for seed, verdict in verdicts.items() if verdict.failed]
    for seed in again:
        for name in names:
            _path(folder, seed, name).unlink(missing_ok=True)
    run(folder, again, backends, replicas, jobs, WHOLE)
    verdicts |= {seed: judge(folder, seed, names, replicas) for seed in again}
    return list(verdicts.values())


def run(folder, seeds, backends, replicas, jobs, flags):
    """Runs the programs whose results are not there yet, in processes side by side.

    Args:
        folder: Where the results go.
        seeds: Numbers of the programs.
        backends: Names of backends.
        replicas: Whether TensorFlow runs each on one and on two replicas instead.
        jobs: How many processes run at once.
        flags: Variables of their environment.
    """
    tasks = queue.SimpleQueue()
    for backend in ["tensorflow"] if replicas else backends:
        names = REPLICAS if replicas else [backend]
        left = [seed for seed in seeds if not all(_done(folder, seed, n, replicas) for n in names)]
        # With replicas, a process for each program: TensorFlow counts collectives over all
        # strategies of a process, and mixes up those of two programs.
        size = 1 if replicas else CHUNK
        for first in range(0, len(left), size):
            tasks.put((backend, left[first : first + size]))

    def work():
        while True:
            try:
                backend, part = tasks.get_nowait()
            except queue.Empty:
                return
            _run_part(folder, backend, part, replicas, flags)

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _run_part(folder, backend, seeds, replicas, flags):
    flag = ["--replicas"] if replicas else []
    paths = os.pathsep.join([str(HERE.parent), str(HERE.parent.parent)])
    done = subprocess.run(
        [sys.executable, HERE / "runner.py", folder, *flag, *map(str, seeds)],
        env={**os.environ, **flags, "KERAS_BACKEND": backend, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"A process under {backend} ended with {done.returncode}.", done.stderr[-3000:])


def _done(folder, seed, name, replicas):
    result = _result(folder, seed, name)
    return result is not None and str(result["source"]) == program(seed, replicas).source


def _result(folder, seed, name):
    path = _path(folder, seed, name)
    if not path.exists():
        return None
    with np.load(path) as arrays:
        return dict(arrays)


def _path(folder, seed, name):
    return pathlib.Path(folder) / f"{seed} {name}.npz"


class Verdict:
    """The result of comparing a program: its worst difference, or why there is none."""

    def __init__(self, seed, error=0.0, words="", tolerance=0.0, refused=False):
        self.seed, self.error, self.words, self.refused = seed, error, words, refused
        self.failed = not error <= tolerance


def judge(folder, seed, names, replicas=False):
    """Compares the results of one program.

    Args:
        folder: Where the results are.
        seed: Number of the program.
        names: Backends, or numbers of replicas, as results are named.
        replicas: Whether the program is one for replicas.

    Returns:
        A `Verdict`.
    """
    results = {name: _result(folder, seed, name) for name in names}
    missing = [name for name, result in results.items() if result is None]
    if missing:
        return Verdict(seed, np.inf, f"no result of {', '.join(missing)}")
    errors = {name: str(result["error"]) for name, result in results.items() if "error" in result}
    if errors:
        refused = len(errors) == len(names) and all("ValueError:" in e for e in errors.values())
        lines = [f"{name}: {error}" for name, error in errors.items()]
        words = "\n".join(lines + [str(results[name]["trace"]) for name in errors])
        return Verdict(seed, 0.0 if refused else np.inf, words, refused=refused)
    reference, *others = results.values()
    tolerance = program(seed, replicas).tolerance
    worst, words = 0.0, ""
    for name, other in zip(names[1:], others, strict=True):
        error, where = difference(reference, other)
        if not error <= worst:
            worst, words = error, f"{names[0]} and {name}: {where}"
    return Verdict(seed, worst, words, tolerance)


def difference(reference, other):
    """The largest relative difference of two results, and where it is.

    For logs it is relative to the larger number. For the change of a weight it is relative to the
    longest change in the model: a gradient that is zero except for rounding, such as that of the
    bias of keys, has no meaningful relative error, and Adam amplifies it.
    """
    if reference.keys() != other.keys():
        return np.inf, f"{sorted(reference.keys() ^ other.keys())}"
    found = [(0.0, "")]
    for key in reference:
        if key.startswith("log "):
            one, two = reference[key], other[key]
            with np.errstate(invalid="ignore"):
                error = np.max(np.abs(one - two) / (np.maximum(abs(one), abs(two)) + 1e-6))
            found.append((error, f"{key}: {one} and {two}"))
    changes = [
        {key: ends[1] - ends[0] for key, ends in result.items() if key.startswith("weight ")}
        for result in (reference, other)
    ]
    # If every gradient is zero except for rounding, the floor keeps that from counting.
    longest = max(1e-9, *(np.linalg.norm(change) for change in changes[0].values()))
    for key, change in changes[0].items():
        error = np.linalg.norm(change - changes[1][key]) / longest
        sizes = f"{np.linalg.norm(change):.3g}, the longest in the model {longest:.3g}"
        found.append((error, f"{key}: a change of length {sizes}"))
    broken = [(np.inf, where) for error, where in found if not np.isfinite(error)]
    return broken[0] if broken else max(found)


def report(verdicts, replicas, sources):
    """A text on all verdicts: failures with their programs, and counts."""
    failed = [verdict for verdict in verdicts if verdict.failed]
    lines = []
    for number, verdict in enumerate(failed):
        lines.append(f"Seed {verdict.seed}: {verdict.error:.3g}, {verdict.words}")
        if number < sources:
            text = program(verdict.seed, replicas).source
            lines.append(f"{'-' * 80}\n{text}{'-' * 80}")
    refused = [verdict for verdict in verdicts if verdict.refused]
    lines += [f"Refused alike, seed {v.seed}: {v.words.splitlines()[0]}" for v in refused]
    ran = [v for v in verdicts if not v.refused and np.isfinite(v.error)]
    worst = max(ran, key=lambda verdict: verdict.error, default=Verdict(None))
    lines.append(
        f"{len(verdicts)} programs, {len(failed)} disagree, {len(refused)} are refused alike. "
        f"The largest difference is {worst.error:.3g}, seed {worst.seed} ({worst.words})."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
