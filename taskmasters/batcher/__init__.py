"""The batcher taskmaster: batches asked for by tasks, each carried to its end whatever happens meanwhile."""
