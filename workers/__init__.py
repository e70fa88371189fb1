"""Ready-made worker applications: ``taskbus worker hello-world``, ``noop``, ``shell``."""
