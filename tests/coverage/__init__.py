"""Which branches of `entrypoint/init/` the tests run: `python -m tests.coverage` (see `__main__.py`)."""
