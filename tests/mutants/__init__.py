"""Mutation testing, by hand, of one module of process 1: `python -m tests.mutants` (see `__main__.py`)."""
