"""agent-init: process 1 for the container of an AI agent.

Which process a module runs in can be read from where it lies: `init/` runs in process 1, `agent/` in the agent's own
process, `report/` in a short-lived one that makes a stall report, `cli` only where no agent is started (help, usage
errors, shell completion).
"""

__version__ = "0.1.0"
