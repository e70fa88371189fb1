"""Sending dead letters back: which of a topic are meant, what is sent for each, and the walk through all of them."""
