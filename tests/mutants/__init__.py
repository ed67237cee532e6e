"""Whether the tests would notice a mistake in `entrypoint/init/`: `python -m tests.mutants` (see `__main__.py`)."""
