"""The plot of leak@k."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elision.errors import MissingExtraError
from elision.evaluation.tofu.measure import Metrics


def plot_leaks(systems: Mapping[str, Metrics], file: Path) -> bool:
    """Draw leak@k over k, a line per system: exposure of the registered spans, and ROUGE-L recall.

    Returns:
        Whether there was anything to draw.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    if not any(curve(metrics, "exposure") for metrics in systems.values()):
        return False
    try:
        from matplotlib.figure import Figure  # without pyplot there is no global state, no display
    except ImportError as exc:
        raise MissingExtraError("matplotlib", extra="eval") from exc
    figure: Any = Figure(figsize=(9, 3.6), layout="constrained")
    titles = {"exposure": "registered span exposed", "rouge": "ROUGE-L recall"}
    for axes, (score, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        _draw(axes, score, title, systems)
    figure.savefig(file, dpi=150)
    return True


def _draw(axes: Any, score: str, title: str, systems: Mapping[str, Metrics]) -> None:
    for name, metrics in systems.items():
        if points := curve(metrics, score):
            axes.plot([*points], [*points.values()], marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("k samples, T = 1")
    axes.set_ylabel("leak@k")
    axes.set_title(title)
    axes.legend()


def curve(metrics: Metrics, score: str) -> dict[int, float]:
    """Return leak@k by k for one score."""
    found = {name.rpartition("@"): m.agg_value for name, m in metrics.items() if "@" in name}
    points = {int(k): v for (head, _, k), v in found.items() if head == f"leak.{score}"}
    return {k: value for k, value in sorted(points.items()) if value is not None}
