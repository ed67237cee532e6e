# uvicorn, two workers
# pip install uvicorn==0.54.0
agent-initctl rehearse --up tcp:8000 --work 'curl -fsSN localhost:8000' --work-up I "$@" -- uvicorn agent:app --workers 2
