# cheroot
# pip install cheroot==11.1.2
agent-initctl rehearse --up tcp:8000 --work 'curl -fsS localhost:8000' "$@" -- python -m cheroot --bind 127.0.0.1:8000 wsgi:app
