# an MCP server over stdio; without work, as its stdin is the client's
# pip install mcp==2.3.0
export AGENT_INIT_STOP_SIGNAL=TERM # after an INT it waits for its thread, which reads stdin until that is closed
agent-initctl rehearse --stdin --up 3s "$@" -- python server.py stdio
