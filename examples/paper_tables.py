"""Makes the tables of the papers: each row is a run of train.py with several seeds.

    python examples/paper_tables.py --table 1 --scale smoke            # a test: half a minute a row
    python examples/paper_tables.py --table 1 figure1 --scale small    # CIFAR-10 on a CPU
    python examples/paper_tables.py --table all --scale cifar --jobs 8 --budget 3000    # a GPU
    python examples/paper_tables.py --render                           # RESULTS.md

Rows that are done are not trained again: the same command goes on where it stopped. Each row
has a folder in the cache, named by its settings, the backend and the version of Keras; after a
change of the code or of a file of data, delete the cache or give another --output.
"""

import argparse
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.tools import at_least, positive, quiet_imports

with quiet_imports(__file__):
    from recipes import pool, render, results, rows
    from recipes.scales import SCALES, Scale
    from recipes.table import Table
    from recipes.tables import TABLES

ROOT = Path(__file__).resolve().parents[1]
INTERRUPTED = 130


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--table", nargs="+", choices=[*TABLES, "all"], help="what to make")
    add(
        "--scale",
        choices=SCALES,
        help="how large: smoke is a test, small is for a CPU, cifar for a GPU, imagenet for "
        "several (default: small; --render leaves smoke out unless it is given)",
    )
    add("--rows", nargs="+", metavar="LABEL", help="only these rows of the tables")
    add("--seeds", type=at_least(1), default=3, help="trainings of each row (default: 3)")
    add("--jobs", type=at_least(1), default=1, help="trainings at once (default: 1)")
    add("--budget", type=positive, metavar="SECONDS", help="stop after that, with what is there")
    add("--data", help="data in the place of the scale's, as in train.py")
    add("--output", type=Path, default=Path("results/tables"), help="folder of the cache")
    add(
        "--render",
        action="store_true",
        help="train nothing; write examples/RESULTS.md, results.json beside it and the figures",
    )
    add("--root", type=Path, default=ROOT, help="the folder that has examples/ and docs/")
    options = parser.parse_args(argv)
    if not options.table and not options.render:
        parser.error("give --table or --render")
    if options.render and options.table not in (None, ["all"]):
        parser.error("--render makes all tables: leave --table out")
    if options.data and options.data.endswith(".npz") and not Path(options.data).is_file():
        parser.error(f"argument --data: there is no file {options.data}")
    return options


def main(argv: list[str] | None = None, program: Sequence[str] = pool.TRAIN) -> None:
    """The program.

    Args:
        argv: The command line.
        program: The command that trains a row.
    """
    start = time.monotonic()
    options = arguments(argv)
    try:
        if options.render:
            render_all(options)
            return
        tables = [table for name, table in TABLES.items() if {name, "all"} & set(options.table)]
        options.output.mkdir(parents=True, exist_ok=True)
        deadline = start + options.budget if options.budget else None
        workers = pool.Pool(options.output, options.jobs, deadline, program)
        with pool.only_one(options.output):
            train(tables, SCALES[options.scale or "small"], workers, options)
    except (OSError, ValueError) as error:
        raise SystemExit(f"paper_tables.py: error: {error}") from None


def train(
    tables: list[Table], scale: Scale, workers: pool.Pool, options: argparse.Namespace
) -> None:
    """Trains what the tables lack, and prints them, also if it is interrupted.

    Raises:
        SystemExit: It was interrupted, or rows failed.
    """
    wanted = rows.trainings(
        tables, scale, options.seeds, options.data, options.output, options.rows
    )
    done = sum(each.is_done for each in wanted)
    print(f"Trainings: {len(wanted)}, of which done: {done}", flush=True)
    left, interrupted = [], False
    try:
        with terminated_as_interrupted():
            left = workers.train(wanted)
    except KeyboardInterrupt:
        interrupted = True
    keys = {each.folder.name for each in wanted}
    entries = [entry for entry in results.read_cache(options.output) if entry["key"] in keys]
    for group in results.groups(entries, tables, [scale]):
        print(f"\n{group.table.heading}: {group.table.title}\n{group.table.note}\n")
        print(f"{render.markdown(group)}\n\n{render.facts(group)}")
    if interrupted:
        print("\nInterrupted. The same command goes on.")
        raise SystemExit(INTERRUPTED)
    if left:
        print(f"\nThe budget is spent. Trainings left: {len(left)}. The same command goes on.")
    failed = [entry for entry in entries if entry["status"] == "failed"]
    if failed:
        raise SystemExit(f"paper_tables.py: error: {len(failed)} trainings failed, see the tables")


def render_all(options: argparse.Namespace) -> None:
    """Writes RESULTS.md, the figures and results.json.

    Raises:
        OSError: A file cannot be written.
        ValueError: There are no results, or a file is damaged.
    """
    from recipes import figures

    scales = [scale for name, scale in SCALES.items() if name != "smoke" or name == options.scale]
    folder, docs = options.root / "examples", options.root / "docs"
    file = folder / "results.json"
    known = results.merged(results.read_file(file), results.read_cache(options.output))
    found = list(results.groups(known, list(TABLES.values()), scales))
    # Tables share rows: without this, one table would bring scraps of others along.
    groups = [group for group in found if group.is_worth_showing]
    if not groups:
        raise ValueError(
            f"{options.output} and {file} have a third of no table of the scales "
            f"{', '.join(scale.name for scale in scales)}. Train first, with --table"
        )
    headings = [table.heading for table in TABLES.values()]
    notes = render.read_notes(folder / "results_notes.md", headings)
    addresses = {}
    for index, group in enumerate(groups):
        name = f"results-{group.name}.png"
        if figures.write_figure(group, docs / name):
            addresses[index] = f"../docs/{name}"
    used = results.merged(*(group.entries for group in found))
    results.write_file(used, file)
    render.write_report(render.report(groups, notes, addresses), folder / "RESULTS.md")
    print(f"Written: {folder / 'RESULTS.md'}, {file} and {len(addresses)} figures in {docs}")


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Makes SIGTERM what Ctrl-C is."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
