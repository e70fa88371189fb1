"""The delay taskmaster: keeps tasks until they are due."""
