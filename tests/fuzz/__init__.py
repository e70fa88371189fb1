"""Fuzzing of everything that reads from outside: ``python -m tests.fuzz``, or ``make fuzz``."""
