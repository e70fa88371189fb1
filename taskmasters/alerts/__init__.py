"""The alerts taskmaster: tells people of what went wrong."""
