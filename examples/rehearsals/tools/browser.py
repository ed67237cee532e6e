"""An agent with a browser: it answers over HTTP what a page shows after two seconds."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

PAGE = "data:text/html,<script>setTimeout(() => document.title = 'I think so.', 2000)</script>"
BROWSER = {"executable_path": shutil.which("chromium") or shutil.which("google-chrome"), "args": ["--no-sandbox"]}


@asynccontextmanager
async def browser(app: Starlette) -> AsyncIterator[None]:
    async with async_playwright() as playwright, await playwright.chromium.launch(**BROWSER) as app.state.browser:
        yield


async def answer(request: Request) -> StreamingResponse:
    async def words() -> AsyncIterator[str]:
        page = await request.app.state.browser.new_page()
        await page.goto(PAGE)
        yield "looking\n"
        await page.wait_for_function("document.title")
        yield await page.title() + "\n"
        await page.close()

    return StreamingResponse(words())


app = Starlette(routes=[Route("/", answer)], lifespan=browser)
