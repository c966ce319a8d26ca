"""How often the page steps and draws, and the share of the time that its pictures may take."""

from __future__ import annotations

from dataclasses import dataclass

TICK = 1.0 / 60.0
FRAME = 1.0 / 20.0
DIAGNOSTIC_SHARE = 0.25


@dataclass(slots=True)
class Budget:
    """Keeps the time spent on pictures below a share of the wall time.

    Attributes:
        share: That share.
        ready: Moment before which no further picture is drawn.
    """

    share: float = DIAGNOSTIC_SHARE
    ready: float = 0.0

    def open(self, now: float) -> bool:
        """Whether a picture may be drawn now."""
        return now >= self.ready

    def spend(self, began: float, ended: float) -> None:
        """Note a picture; until the next one, (1/share - 1) times as long goes into other work."""
        self.ready = ended + (ended - began) * (1.0 / self.share - 1.0)
