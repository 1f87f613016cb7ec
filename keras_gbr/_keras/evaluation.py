"""What `evaluate` returns of a model that keeps some of its metrics for training."""

from abc import abstractmethod
from typing import Any


class EvaluatesLess:
    """A mixin of models whose `test_step` returns some of the metrics only.

    Keras takes the metrics of all replicas where the logs of a step have all metrics. It takes
    the logs themselves, those of one replica, where some are missing.
    """

    @abstractmethod
    def without_penalties(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Logs of all metrics without those that `evaluate` leaves out."""

    def _get_metrics_result_or_logs(self, logs: Any) -> Any:
        results = self.without_penalties(self.get_metrics_result())  # type: ignore[attr-defined]
        if isinstance(logs, dict) and logs.keys() == results.keys():
            return results
        return super()._get_metrics_result_or_logs(logs)  # type: ignore[misc]
