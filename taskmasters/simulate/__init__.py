"""``taskbus simulate``: all taskmasters together on a virtual clock."""
