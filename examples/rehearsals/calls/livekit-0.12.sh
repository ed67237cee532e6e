# LiveKit Agents, an old version, with a task that is never awaited
# pip install livekit-agents==0.12.16 livekit-api
# LiveKit's server: https://docs.livekit.io/transport/self-hosting/local/
. ./livekit-server.sh
agent-initctl rehearse --up 'registered worker' --work 'python work.py' --work-up answered "$@" -- python unawaited.py start
