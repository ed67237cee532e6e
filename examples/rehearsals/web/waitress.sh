# waitress
# pip install waitress==3.0.2
agent-initctl rehearse --up tcp:8000 --work 'curl -fsS localhost:8000' "$@" -- waitress-serve --port 8000 wsgi:app
