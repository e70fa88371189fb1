"""The ``taskbus`` command."""
