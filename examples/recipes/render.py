"""Tables in Markdown, and RESULTS.md."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common.tools import aligned, write_whole

from recipes.results import Entry, Group

NOTHING = "-"
_LONGEST_MESSAGE = 100
_PERCENT = 100.0
_INTRODUCTION = "Introduction"
_HEADER = """\
# Results

`python examples/paper_tables.py --render` makes this file from the results of the trainings
(results.json beside it, and the cache) and from the comments in results_notes.md. Change those.

A cell is the mean and the sample standard deviation over the seeds, or one number if there is one
seed. "paper" is what the paper has, for ImageNet: compare differences between rows, not numbers.
FGSM and PGD are accuracies under attack.
"""


@dataclass(frozen=True)
class Column:
    """How a measure is shown.

    Attributes:
        heading: The heading of its column.
        factor: What it is multiplied by.
        decimals: Digits behind the point; `None` for three significant digits.
    """

    heading: str
    factor: float = 1.0
    decimals: int | None = None


COLUMNS = {
    "test_accuracy": Column("test %", _PERCENT, 2),
    "train_accuracy": Column("train %", _PERCENT, 2),
    "gap": Column("gap", _PERCENT, 2),
    "gbr": Column("GBR"),
    "gbr_probabilities": Column("GBR of softmax"),
    "fgsm_accuracy": Column("FGSM %", _PERCENT, 2),
    "pgd_accuracy": Column("PGD %", _PERCENT, 2),
    "parameters": Column("parameters, millions", 1e-6, 2),
    "images_per_second": Column("images/s"),
    "compilation_seconds": Column("compilation, s", 1.0, 1),
    "training_seconds": Column("training, s", 1.0, 0),
    "peak_memory_bytes": Column("peak memory, MiB", 2.0**-20, 0),
}


def markdown(group: Group) -> str:
    """The table of a group, the paper's numbers beside the measured ones."""
    papers = {name for row, _ in group.rows for name in row.paper}
    head = ["row"]
    for name in group.table.columns:
        heading = COLUMNS[name].heading
        head += [heading, f"paper: {heading}"] if name in papers else [heading]
    lines = [[*head, "seeds"]]
    for row, entries in group.rows:
        finished = [entry for entry in entries if entry["status"] == "finished"]
        others = _misfortunes(entry for entry in entries if entry["status"] != "finished")
        cells = [row.label]
        for name in group.table.columns:
            column = COLUMNS[name]
            cells.append(cell([entry.get(name) for entry in finished], column))
            if name in papers:
                known = row.paper.get(name)
                cells.append(NOTHING if known is None else f"{known:.2f}")
        if others and not finished:
            cells[1], others = others[0], others[1:]
        seeds = [f"{len(finished)}" if finished else NOTHING, *others]
        lines.append([*cells, "; ".join(seeds)])
    return aligned(lines)


def cell(values: Iterable[float | None], column: Column) -> str:
    """The mean and the sample standard deviation of the values that there are."""
    there = column.factor * np.array([value for value in values if value is not None], "float64")
    if not len(there):
        return NOTHING
    digits = "{:.3g}" if column.decimals is None else f"{{:.{column.decimals}f}}"
    mean = digits.format(there.mean())
    if len(there) == 1:
        return mean
    spread = ("{:.2g}" if column.decimals is None else digits).format(there.std(ddof=1))
    return f"{mean} ±{spread}"


def _misfortunes(entries: Iterable[Entry]) -> list[str]:
    """What trainings without measures came to: each text with its seeds."""
    seeds: dict[str, list[str]] = {}
    for entry in entries:
        seeds.setdefault(_misfortune(entry), []).append(str(entry["config"]["seed"]))
    return [f"{text} (seed {', '.join(found)})" for text, found in seeds.items()]


def _misfortune(entry: Entry) -> str:
    message = " ".join((entry.get("message") or "").split()).replace("|", "/")
    epoch = re.search(r"epoch (\d+)", message)
    if entry["status"] == "diverged" and epoch:
        return f"NaN after epoch {epoch[1]}"
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[:_LONGEST_MESSAGE]}..."
    return f"{entry['status']}: {message}"


def facts(group: Group) -> str:
    """The command of a table, and with what and how long it ran."""
    configs = [entry["config"] for entry in group.entries]
    entries, finished = group.entries, group.finished()
    command = (
        f"python examples/paper_tables.py --table {group.table.name} --scale {group.scale.name} "
        f"--seeds {1 + max(config['seed'] for config in configs)}"
    )
    jobs = max((entry.get("jobs", 1) for entry in entries), default=1)
    command += f" --jobs {jobs}" if jobs > 1 else ""
    if group.data != group.scale.settings["data"]:
        command += f" --data {group.data}"

    def all_of(name: str) -> str:
        return ", ".join(dict.fromkeys(str(config.get(name)) for config in configs))

    samples = all_of("samples").replace("None", "all")
    lines = [
        f"`KERAS_BACKEND={group.backend} {command}`",
        f"{group.data}, training images: {samples}; network: {all_of('network')}; "
        f"epochs: {all_of('epochs')}; batch: {all_of('batch_size')}; weight decay: "
        f"{all_of('weight_decay')}",
        *_attacks(group, finished),
        f"{_distinct(finished, 'hardware') or 'hardware unknown'}; {_versions(group, finished)}",
        _times(entries),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _distinct(entries: Iterable[Entry], name: str) -> str:
    return " and ".join(dict.fromkeys(str(e[name]) for e in entries if e.get(name) is not None))


def _attacks(group: Group, finished: list[Entry]) -> list[str]:
    if not finished or "fgsm_accuracy" not in group.table.columns:
        return []

    def numbers(name: str) -> str:
        values = (e[name] for e in finished if e.get(name) is not None)
        return ", ".join(dict.fromkeys(f"{value:.3g}" for value in values))

    text = f"FGSM with epsilon {numbers('fgsm_epsilon')} ({_distinct(finished, 'fgsm_by')})"
    if "pgd_accuracy" in group.table.columns:
        text += f"; PGD with epsilon {numbers('pgd_epsilon')}, {numbers('pgd_steps')} steps"
    return [f"{text}; on {numbers('attacked')} test images; pixels are in 0 to 1"]


def _versions(group: Group, finished: list[Entry]) -> str:
    versions = [entry.get("versions") or {} for entry in finished]
    # TensorFlow has two packages.
    found = [_distinct(versions, group.backend), _distinct(versions, f"{group.backend}-cpu")]
    known = " and ".join(filter(None, found))
    return f"{group.backend} {known}".strip() + f", Keras {group.keras}"


def _times(entries: list[Entry]) -> str:
    spans = sorted(tuple(span) for entry in entries for span in entry.get("attempts", []))
    total = sum(end - start for start, end in spans)
    elapsed, reached = 0.0, 0.0
    for start, end in spans:
        elapsed += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return f"wall time: {duration(elapsed)}; the rows together {duration(total)}"


def duration(seconds: float) -> str:
    """Seconds as hours, minutes or seconds."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def read_notes(path: Path, headings: Iterable[str]) -> dict[str, str]:
    """The comments on the tables, by the headings of the tables.

    Args:
        path: A Markdown file with a section "## HEADING" for each table; it may be missing.
        headings: The headings that there are.

    Raises:
        ValueError: A section has the heading of no table.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    _, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    notes = {}
    allowed = [_INTRODUCTION, *headings]
    for section in sections:
        heading, _, content = section.partition("\n")
        if heading.strip() not in allowed:
            raise ValueError(
                f"{path}: a section must be one of {', '.join(allowed)}. "
                f"Received: {heading.strip()!r}"
            )
        notes[heading.strip()] = content.strip()
    return notes


def report(groups: list[Group], notes: dict[str, str], figures: dict[int, str]) -> str:
    """The text of RESULTS.md.

    Args:
        groups: All tables, those of one name behind each other.
        notes: See `read_notes`.
        figures: The addresses of figures, by the index of their group.
    """
    parts = [_HEADER, notes.get(_INTRODUCTION, "")]
    for index, group in enumerate(groups):
        table = group.table
        if not index or groups[index - 1].table is not table:
            parts += [f"## {table.heading}: {table.title}", f"{table.source}.", table.note]
        title = f"scale {group.scale.name}, {Path(group.data).name}, "
        title += f"{group.backend} with Keras {group.keras}"
        parts += [f"### {table.heading}, {title}", markdown(group), facts(group)]
        if index in figures:
            parts.append(f"![{table.heading}: {table.title}]({figures[index]})")
        if index + 1 == len(groups) or groups[index + 1].table is not table:
            comment = notes.get(table.heading)
            parts += [f"### {table.heading}: what it shows", comment] if comment else []
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def write_report(text: str, path: Path) -> None:
    """Writes RESULTS.md whole."""
    write_whole(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))
