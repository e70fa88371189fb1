"""What taskmasters have in common that take tasks from one topic into a store and send from its outbox."""
