"""Shared by the tests: `actor` plays the agent, `init` runs agent-init as a real process 1 or as a subreaper."""
