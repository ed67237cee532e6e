"""An MCP server with a tool that takes two seconds: `python server.py stdio|streamable-http`."""

import asyncio
import sys

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("tools")


@server.tool()
async def think(context: Context) -> str:
    await context.report_progress(0)
    await asyncio.sleep(2)
    return "I think so."


if __name__ == "__main__":
    server.run(sys.argv[1])
