"""The files taskmaster: makes tasks when files arrive, in folders and in object stores."""
