"""The on-done taskmaster: makes tasks from tasks that are done."""
