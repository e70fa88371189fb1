"""The texts that ``taskbus new`` writes, with ``{{name}}`` and ``{{class}}`` to be filled in."""
