"""The workflow taskmaster: runs graphs of jobs, and remembers where each run is."""
