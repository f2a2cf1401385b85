"""The six public statuses of a job, which are OpenAI's. What they leave open, and what moves a job from one to another,
stands in `domain.jobs.life`."""

from typing import Literal

Status = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]

ENDED: tuple[Status, ...] = ("succeeded", "failed", "cancelled")
OPEN: tuple[Status, ...] = ("validating_files", "queued", "running")
