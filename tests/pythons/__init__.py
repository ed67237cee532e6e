"""The suites on the current Pythons: a Debian with them, and what runs where (`python -m tests.pythons`)."""
