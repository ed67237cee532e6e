# granian, two workers
# pip install granian==2.8.9
agent-initctl rehearse --up tcp:8000 --work 'curl -fsSN localhost:8000' --work-up I "$@" -- granian --interface asgi --workers 2 agent:app
