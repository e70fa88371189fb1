"""``--processes N``: N worker processes on one machine, kept alive by a parent that does no tasks itself.

Each child is the same program with the same arguments in a fresh interpreter. It finds its place by
:mod:`task.supervisor.place`, reports to the parent over a socket pair, and is an ordinary worker otherwise.
"""
