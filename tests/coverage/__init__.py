"""Which branches of process 1 the tests run: `python -m tests.coverage` (see `__main__.py`)."""
