"""Fault injection: agent-init keeps its promises whatever the machine, the agent or another process does to it."""
