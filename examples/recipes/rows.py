"""Rows as trainings with a seed: their settings, and the cache of their results."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from common.tools import write_whole

from recipes.config import Config
from recipes.scales import Scale
from recipes.table import Row, Table

# The files of a training's folder that are read here.
RESULT = "result.json"
RUN = "run.json"


@dataclass(frozen=True)
class Training:
    """A row with a seed.

    Attributes:
        label: For messages.
        config: The settings.
        folder: The folder of the training, in the cache.
    """

    label: str
    config: Config
    folder: Path

    @property
    def is_done(self) -> bool:
        """Whether it ended, finished or diverged."""
        return (self.folder / RESULT).exists()


def config_of(row: Row, scale: Scale, seed: int = 0, data: str | None = None) -> Config:
    """The complete settings of a row.

    Args:
        row: The row.
        scale: Its scale.
        seed: Its seed.
        data: Data in the place of the scale's.

    Raises:
        ValueError: A setting is wrong.
    """
    chosen = {"data": data} if data else {}
    return Config(**{**scale.settings, **row.changes, **chosen, "seed": seed})


def trainings(
    tables: Iterable[Table],
    scale: Scale,
    seeds: int,
    data: str | None,
    output: Path,
    labels: Collection[str] | None = None,
) -> list[Training]:
    """All trainings of some tables, each once.

    Those with the first seed come first, then those with the second: a run that is interrupted
    leaves whole tables with fewer seeds.

    Args:
        tables: The tables.
        scale: Their scale.
        seeds: Seeds of each row: 0, 1, ...
        data: See `config_of`.
        output: The folder that has the cache.
        labels: Those of the rows to train; all by default.

    Raises:
        ValueError: No table has a row of such a label.
    """
    tables = list(tables)
    known = [row.label for table in tables for row in table.rows(scale)]
    unknown = sorted(set(labels or []) - set(known))
    if unknown:
        raise ValueError(f"rows must be out of {', '.join(known)}. Received: {unknown}")
    found: dict[Path, Training] = {}
    for seed in range(seeds):
        for table in tables:
            for row in table.rows(scale):
                if labels and row.label not in labels:
                    continue
                config = config_of(row, scale, seed, data)
                folder = output / "cache" / key(config)
                label = f"{table.name}: {row.label}, seed {seed}"
                found.setdefault(folder, Training(label, config, folder))
    return list(found.values())


def key(config: Config) -> str:
    """The name of a training's folder in the cache.

    It changes with any setting, the backend and the version of Keras. It does not change with
    the code of the recipes or of keras_gbr, nor with what a file of data holds: delete the cache
    after such a change.
    """
    content = {"config": config.as_dict(), **environment_of_key()}
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def environment_of_key() -> dict[str, str]:
    """The backend and the version of Keras, without importing it: that takes seconds."""
    return {"backend": _backend(), "keras": metadata.version("keras")}


def _backend() -> str:
    """The backend that Keras will choose: the variable, its file of settings, its default."""
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    settings = read_json(folder / "keras.json") or {}
    return str(settings.get("backend", "tensorflow"))


def read_json(path: Path) -> dict[str, Any] | None:
    """What a file holds, or `None` if it is not there or is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def note(
    training: Training,
    jobs: int,
    attempt: tuple[float, float] | None = None,
    failure: str | None = None,
) -> None:
    """Writes down that a training runs or ran: when, beside how many others, why it failed.

    Args:
        training: The training.
        jobs: Trainings that run at once, at most.
        attempt: Start and end, in seconds since the epoch of Unix; `None` at the start.
        failure: One line, or `None` if it did not fail.
    """
    path = training.folder / RUN
    attempts = (read_json(path) or {}).get("attempts", [])
    if attempt:
        attempts.append([round(second, 1) for second in attempt])
    content = {
        **environment_of_key(),
        "config": training.config.as_dict(),
        "jobs": jobs,
        "attempts": attempts,
        "failure": failure,
    }
    write_json(content, path)


def write_json(content: Any, path: Path) -> None:
    """Writes a JSON file whole."""
    text = json.dumps(content, indent=1) + "\n"
    write_whole(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))
