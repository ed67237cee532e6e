# `asyncio.run` alone, with a `finally`
agent-initctl rehearse --up tcp:8000 --work 'curl -fsSN localhost:8000' --work-up I "$@" -- python no_handler.py
