"""`agent-initctl rehearse`: run an agent again and again, stop it in each way a platform does, and judge how it ended.

The code runs in the operator's process, as `agent-initctl` does; the agent runs behind an agent-init of its own.
"""
