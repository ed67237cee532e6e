"""The command `agent-initctl`, which asks process 1. It runs in a process of its own, wherever it is called."""
