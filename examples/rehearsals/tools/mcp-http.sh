# an MCP server over HTTP
# pip install mcp==2.3.0
agent-initctl rehearse --up tcp:8000 --work 'python work.py' --work-up begun "$@" -- python server.py streamable-http
