"""What `evaluate` returns for a model that has some metrics only in training."""

from abc import abstractmethod
from typing import Any


class EvaluatesLess:
    """A mixin for models whose `test_step` returns only some of the metrics.

    If the logs of a step have all metrics, Keras returns the metrics of all replicas. If some are
    missing, it returns the logs themselves, which are those of one replica.
    """

    @abstractmethod
    def without_penalties(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Logs of all metrics without those that `evaluate` leaves out."""

    def _get_metrics_result_or_logs(self, logs: Any) -> Any:
        results = self.without_penalties(self.get_metrics_result())  # type: ignore[attr-defined]
        if isinstance(logs, dict) and logs.keys() == results.keys():
            return results
        return super()._get_metrics_result_or_logs(logs)  # type: ignore[misc]
