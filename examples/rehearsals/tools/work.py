"""Call the tool of the MCP server on port 8000."""

import asyncio

from mcp import Client


async def main() -> None:
    async def begun(*_: object) -> None:
        print("begun", flush=True)

    async with Client("http://localhost:8000/mcp") as client:
        await client.list_tools()  # as clients do; else the schema of the answer is asked for once the answer is there
        result = await client.call_tool("think", progress_callback=begun)
    print(result.content[0].text)


asyncio.run(main())
