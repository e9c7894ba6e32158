"""Progress bars for long waits: what the work tells, and two listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, RenderableType
    from rich.progress import Progress as RichBars
    from rich.progress import ProgressColumn, Task, TaskID


class Progress(Protocol):
    """Hears how far a long piece of work has come; called from the thread that does the work."""

    def stage(self, label: str, total: int | None = None) -> None:
        """Begin the next stage, which ends the one before.

        Args:
            label: What is being done, as a person would say it.
            total: Bytes (or steps) in this stage; None if nobody knows.
        """
        ...

    def advance(self, n: int) -> None:
        """Count *n* more bytes (or steps) of the present stage as done."""
        ...


class Silence:
    """A `Progress` that shows nothing."""

    def stage(self, label: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, n: int) -> None:
        """Do nothing."""


class RichProgress:
    """A `Progress` that draws one bar per stage; a context manager, alive while it is open.

    Args:
        console: Where to draw; standard error by default. On a stream that is no terminal each
            stage leaves one line when it ends, so logs stay readable.
        unit: ``bytes`` shows sizes and speed, ``steps`` a plain count.
    """

    def __init__(self, console: Console | None = None, *, unit: str = "bytes") -> None:
        self._bars = _bars(console, unit)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        self._bars.stop()

    def stage(self, label: str, total: int | None = None) -> None:
        """Begin a bar; without a total it pulses."""
        self._finish()
        self._task = self._bars.add_task(label, total=total)

    def advance(self, n: int) -> None:
        """Move the present bar on."""
        if self._task is not None:
            self._bars.advance(self._task, n)

    def _finish(self) -> None:
        if self._task is None:
            return
        total = self._bars.tasks[self._bars.task_ids.index(self._task)].total
        done = _NO_SIZE if total is None else total
        self._bars.update(self._task, total=done, completed=done)


_NO_SIZE = 1e-9
"""Total of a finished stage that nobody could measure: full, and shown without a size."""


def _bars(console: Console | None, unit: str) -> RichBars:
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Sized(progress.ProgressColumn):
        """Shows another column, once a stage's size is known."""

        def __init__(self, column: ProgressColumn) -> None:
            super().__init__()
            self.column = column

        def render(self, task: Task) -> RenderableType:
            return self.column(task) if (task.total or 0) > _NO_SIZE else Text()

    amounts = (
        [progress.DownloadColumn(), progress.TransferSpeedColumn()]
        if unit == "bytes"
        else [progress.MofNCompleteColumn()]
    )
    return progress.Progress(
        progress.SpinnerColumn(finished_text="✓"),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        *map(Sized, amounts),
        progress.TimeElapsedColumn(),
        console=console or Console(stderr=True),
    )
