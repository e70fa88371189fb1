"""Other Python task queues beside ours, on the same server: ``make bench PEERS=1``.

Each has a file that sends and does no-op tasks as its documentation recommends it, and runs in an environment of its
own (``requirements.txt``): none of them is ever a dependency of ours.
"""
