"""Checking an upload line by line, in a process of its own with limits on memory and time."""
