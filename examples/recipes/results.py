"""What the trainings came to: from the cache, and from the small file that is committed."""

import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common.tools import write_whole

from recipes.config import Config
from recipes.rows import RESULT, RUN, config_of, read_json
from recipes.scales import Scale
from recipes.table import Row, Table

# A training as a dictionary: what result.json has, and "key", "backend", "keras", "jobs" and
# "attempts", the times in which it ran. "status" is finished, diverged or failed.
Entry = dict[str, Any]

_CURVES = ("epoch", "accuracy", "test_accuracy", "gbr", "test_gbr")
_POINTS = 40  # of a curve in a figure
_DIGITS = 6


@dataclass(frozen=True)
class Group:
    """The results of one table at one scale, with one set of data, backend and version of Keras.

    Attributes:
        table: The table.
        scale: The scale.
        data: The data.
        backend: The backend.
        keras: The version of Keras.
        rows: Each row with its trainings, by seed. A row that has none has an empty list.
    """

    table: Table
    scale: Scale
    data: str
    backend: str
    keras: str
    rows: list[tuple[Row, list[Entry]]]

    @property
    def entries(self) -> list[Entry]:
        """The trainings of all rows."""
        return [entry for _, entries in self.rows for entry in entries]

    @property
    def name(self) -> str:
        """A name for files."""
        parts = [self.table.name, self.scale.name, Path(self.data).stem, self.backend, self.keras]
        return "-".join(parts)

    @property
    def is_worth_showing(self) -> bool:
        """Whether more than a third of the rows have results."""
        return 3 * sum(bool(entries) for _, entries in self.rows) > len(self.rows)

    def finished(self) -> list[Entry]:
        """Those that have measures."""
        return [entry for entry in self.entries if entry["status"] == "finished"]


def read_cache(output: Path) -> list[Entry]:
    """The trainings in the cache that finished, diverged or failed."""
    entries = []
    for folder in sorted((output / "cache").glob("*")):
        run, result = read_json(folder / RUN) or {}, read_json(folder / RESULT)
        if result is None and not run.get("failure"):
            continue
        if result is None:
            result = {"status": "failed", "message": run["failure"], "config": run["config"]}
        versions = {"keras": result.get("versions", {}).get("keras", "")}
        kept = ("jobs", "attempts", "keras", "backend")
        notes = {name: run[name] for name in kept if name in run}
        entries.append({"key": folder.name, "backend": "", **versions, **result, **notes})
    return [_reduced(entry) for entry in entries]


def read_file(path: Path) -> list[Entry]:
    """The trainings in the committed file; none if it is not there.

    Raises:
        ValueError: The file is damaged.
    """
    if not path.exists():
        return []
    try:
        entries: list[Entry] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    return entries


def write_file(entries: Iterable[Entry], path: Path) -> None:
    """Writes what `read_file` reads, a line an entry."""
    ordered = sorted(entries, key=lambda entry: (_same_row(entry) or "", entry["config"]["seed"]))
    lines = ",\n".join(json.dumps(entry) for entry in ordered)
    write_whole(path, lambda temporary: Path(temporary).write_text(f"[\n{lines}\n]\n", "utf-8"))


def merged(*sources: Iterable[Entry]) -> list[Entry]:
    """The trainings of several sources; of equal ones, the last that did not fail."""
    found: dict[str, Entry] = {}
    for entry in itertools.chain(*sources):
        if entry["status"] != "failed" or entry["key"] not in found:
            found[entry["key"]] = entry
    return list(found.values())


def groups(entries: Iterable[Entry], tables: list[Table], scales: list[Scale]) -> Iterator[Group]:
    """The tables for which there are results, in the order of tables and scales."""
    kinds: dict[tuple[str, str, str], dict[str, list[Entry]]] = {}
    for entry in entries:
        same_row = _same_row(entry)
        if same_row is not None:
            kind = entry["config"]["data"], entry["backend"], entry["keras"]
            kinds.setdefault(kind, defaultdict(list))[same_row].append(entry)
    for table in tables:
        for scale in scales:
            for kind in sorted(kinds):
                rows = [
                    (row, _by_seed(kinds[kind], config_of(row, scale, data=kind[0])))
                    for row in table.rows(scale)
                ]
                if any(found for _, found in rows):
                    yield Group(table, scale, *kind, rows)


def _by_seed(known: dict[str, list[Entry]], config: Config) -> list[Entry]:
    return sorted(known.get(_text(config), []), key=lambda entry: entry["config"]["seed"])


def _same_row(entry: Entry) -> str | None:
    """A text that is the same for all seeds of a row; `None` if its settings no longer exist.

    Settings that have been added since the training have their default.
    """
    try:
        return _text(Config(**entry["config"]))
    except (TypeError, ValueError):
        return None


def _text(config: Config) -> str:
    return json.dumps(dataclasses.replace(config, seed=0).as_dict(), sort_keys=True)


def _reduced(entry: Entry) -> Entry:
    """An entry without its history, but for the curves of the figures."""
    history = entry.pop("history", None)
    reduced = {name: _rounded(value) for name, value in entry.items()}
    if history and entry["config"].get("monitor_gbr"):
        chosen = np.unique(np.linspace(0, len(history) - 1, _POINTS).round().astype(int))
        reduced["history"] = [
            {name: _rounded(history[i][name]) for name in _CURVES if name in history[i]}
            for i in chosen
        ]
    return reduced


def _rounded(value: Any) -> Any:
    if isinstance(value, float) and abs(value) < 1e6:
        return float(f"{value:.{_DIGITS}g}")
    return value
