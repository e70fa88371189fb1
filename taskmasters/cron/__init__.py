"""The cron taskmaster: makes tasks as time passes."""
