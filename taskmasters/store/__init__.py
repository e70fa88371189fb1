"""What taskmasters must remember, in SQL: SQLite, PostgreSQL, MySQL and MariaDB through SQLAlchemy Core.

``open_store`` opens a place; ``Store.run`` does one transaction. ``outbox`` keeps tasks that are to be sent, now or
later, and ``Relay`` sends them; ``Inbox`` takes messages from a bus into transactions.
"""

from taskmasters.store.inbox import Arrival, Fate, Inbox
from taskmasters.store.outbox import Outgoing
from taskmasters.store.relay import Relay
from taskmasters.store.schema import Schema
from taskmasters.store.store import Store, open_store

__all__ = ["Arrival", "Fate", "Inbox", "Outgoing", "Relay", "Schema", "Store", "open_store"]
