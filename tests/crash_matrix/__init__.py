"""Every taskmaster killed with ``kill -9`` over and over, and what came of it beside a run without kills.

A :class:`~tests.crash_matrix.case.Case` says how one taskmaster is started, what goes in, and who does its tasks.
:func:`~tests.crash_matrix.drive.crash` runs it twice, with kills and without, and compares the sets of distinct tasks.
``python -m tests.crash_matrix`` prints a table over all cases and buses.
"""
