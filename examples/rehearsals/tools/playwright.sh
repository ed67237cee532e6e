# an agent with a browser, by Playwright
# pip install playwright==1.65.2 starlette uvicorn
# apt-get install chromium, or: playwright install --with-deps chromium
agent-initctl rehearse --up tcp:8000 --work 'curl -fsSN localhost:8000' --work-up looking "$@" -- uvicorn browser:app
