"""The batch taskmaster: makes the tasks of a range of dates or of the rows of a file, once."""
