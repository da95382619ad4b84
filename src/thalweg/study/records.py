"""What a trial leaves behind."""

from dataclasses import dataclass
from typing import Any, TypeAlias

Record: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What a trial left behind.

    Attributes:
        header: specification and environment.
        evaluations: one record each.
        end: the closing record; see `trial.run`.
    """

    header: Record
    evaluations: tuple[Record, ...]
    end: Record

    @property
    def finished(self) -> bool:
        """Whether training went through to its end."""
        return bool(self.end["status"] == "finished")

    @property
    def settled(self) -> bool:
        """Whether running the trial again would show nothing new. The cause of a crash may be mended."""
        return self.end["status"] not in ("crashed", "memory")
