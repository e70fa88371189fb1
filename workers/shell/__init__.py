"""A worker that runs a program for every task: ``taskbus worker shell -- convert {path} {param:out}``."""
