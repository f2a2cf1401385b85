"""Where a job stands. The six public statuses are OpenAI's; what they leave open is said in `status_detail`."""

from typing import Literal

ENDED = ("succeeded", "failed", "cancelled")
OPEN = ("validating_files", "queued", "running")

WAITING = "waiting_for_approval"
"""Queued; a steward must agree before any worker begins."""
PAUSED = "paused"
"""Queued; nobody works on it until it is resumed."""
PAUSING = "pausing"
"""Running; its worker was asked to let go."""
CANCELLING = "cancelling"
"""Running; its worker was asked to stop and to settle."""
REJECTED = "rejected"
"""Cancelled, by a steward."""
EXPIRED = "expired"
"""Cancelled, by a time limit."""

Detail = Literal["waiting_for_approval", "paused", "pausing", "cancelling", "rejected", "expired"]
HELD = (WAITING, PAUSED)
"""Queued, but not in line."""
