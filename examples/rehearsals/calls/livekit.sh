# LiveKit Agents
# pip install livekit-agents==1.8.9
# LiveKit's server: https://docs.livekit.io/transport/self-hosting/local/
. ./livekit-server.sh
agent-initctl rehearse --up 'registered worker' --work 'python work.py' --work-up answered "$@" -- python agent.py start
