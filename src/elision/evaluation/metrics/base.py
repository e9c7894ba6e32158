"""What a metric returns: one number, and the values that it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Self

from elision.errors import ConfigError
from elision.evaluation.metrics.intervals import bootstrap


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric over a set of items.

    Attributes:
        agg_value: The aggregate; None if there were no items.
        value_by_index: Each item's value, by its row in the data set.
    """

    agg_value: float | None
    value_by_index: Mapping[int, float]

    @classmethod
    def mean(cls, values: Mapping[int, float]) -> Self:
        """Aggregate *values* by their mean."""
        return cls(fmean(values.values()) if values else None, dict(values))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % bootstrap interval of the mean of the values; None without items."""
        return bootstrap([*self.value_by_index.values()]) if self.value_by_index else None

    def to_json(self) -> dict[str, Any]:
        """Return the two fields as JSON takes them."""
        return {
            "agg_value": self.agg_value,
            "value_by_index": {str(index): v for index, v in self.value_by_index.items()},
        }


def same_rows(*columns: Iterable[int]) -> None:
    """Raise unless all *columns* speak of the same rows.

    Raises:
        ConfigError: If one has a row that another lacks.
    """
    rows = [set(column) for column in columns]
    if any(other != rows[0] for other in rows[1:]):
        sizes = ", ".join(str(len(r)) for r in rows)
        raise ConfigError(f"the columns do not speak of the same rows ({sizes} rows)")
