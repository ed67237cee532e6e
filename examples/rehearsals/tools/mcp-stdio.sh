# an MCP server over stdio; without work, as its stdin is the client's
# pip install mcp==2.3.0
agent-initctl rehearse --stdin --up 3s "$@" -- python server.py stdio
