"""What a table is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from recipes.scales import Scale


@dataclass(frozen=True)
class Row:
    """A row of a table: one training for each seed.

    Attributes:
        label: What the row shows.
        changes: Settings that differ from those of the scale, as in `Config`.
        paper: What the paper has, by the keys of result.json: shares in %, parameters in
            millions. Its numbers are from ImageNet.
    """

    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table, or a figure with its numbers.

    Attributes:
        name: Its name on the command line.
        heading: Its heading in RESULTS.md and results_notes.md.
        title: What is compared.
        source: The paper.
        note: What differs from the paper.
        columns: The measures that it shows: keys of result.json.
        rows: Function of the scale that returns the rows.
    """

    name: str
    heading: str
    title: str
    source: str
    note: str
    columns: tuple[str, ...]
    rows: Callable[[Scale], list[Row]]
