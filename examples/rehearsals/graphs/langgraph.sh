# LangGraph's server, in memory
# pip install 'langgraph-cli[inmem]==0.4.40'
agent-initctl rehearse --up http://localhost:8000/ok --work 'python work.py' --work-up metadata "$@" -- \
    langgraph dev --no-browser --no-reload --port 8000
