# a server with an engine in a process of its own, as vLLM
agent-initctl rehearse --up tcp:8000 --work 'curl -fsSN localhost:8000' --work-up I "$@" -- python engine.py
