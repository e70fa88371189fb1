"""The retry taskmaster: has tasks that ended with an error done again."""
