# Node, with handlers for TERM and INT
# apt-get install nodejs
agent-initctl rehearse --up tcp:8000 --work 'curl -fsSN localhost:8000' --work-up I "$@" -- node agent.mjs
