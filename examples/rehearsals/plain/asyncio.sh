# asyncio, with handlers for TERM and INT
agent-initctl rehearse --up tcp:8000 --work 'curl -fsSN localhost:8000' --work-up I "$@" -- python agent.py
