"""Backends on which a step is one program for the whole batch, on however many devices."""

from typing import Any


def num_replicas() -> int:
    """The number of replicas that take a step together."""
    return 1


def replica_id() -> int:
    """The number of this replica, from 0."""
    return 0


def replica_mean(tensors: list[Any]) -> list[Any]:
    """The means of tensors over the replicas."""
    return tensors


def held_numbers(values: list[float]) -> list[Any]:
    """No variables: a step runs with the numbers as they are, or is given them."""
    return []


def current_trace() -> Any:
    """Nothing: what a compiled function has read is what it was given."""
    return None
