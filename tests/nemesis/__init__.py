"""The nemesis: faults on real brokers and real processes, and an account of what came of every task.

``python -m tests.nemesis --help`` runs it. A trial is a :class:`~tests.nemesis.cluster.Cluster` (a broker behind a
proxy, workers that a supervisor keeps alive, a sender, an observer of what is done and dead), a plan of seeded periods
in which :mod:`faults <tests.nemesis.fault>` happen, and a :mod:`ledger <tests.nemesis.ledger>` outside the bus that
says in the end what was lost and what was done twice.
"""
