# hypercorn, one worker
# pip install hypercorn==0.18.0
agent-initctl rehearse --up tcp:8000 --work 'curl -fsSN localhost:8000' --work-up I "$@" -- hypercorn agent:app
