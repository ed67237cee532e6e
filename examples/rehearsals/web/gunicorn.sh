# gunicorn, two uvicorn workers
# pip install gunicorn==27.0.1 uvicorn==0.54.0 uvicorn-worker==0.4.0
agent-initctl rehearse --up tcp:8000 --work 'curl -fsSN localhost:8000' --work-up I "$@" -- gunicorn -w 2 -k uvicorn_worker.UvicornWorker agent:app
