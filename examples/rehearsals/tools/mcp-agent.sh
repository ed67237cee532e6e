# an agent with an MCP server over stdio
# pip install mcp==2.3.0
agent-initctl rehearse --up tcp:8000 --work 'curl -fsSN localhost:8000' --work-up thinking "$@" -- uvicorn agent:app
