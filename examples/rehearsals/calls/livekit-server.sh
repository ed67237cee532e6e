# Starts a LiveKit server for a rehearsal, unless LIVEKIT_URL names one; it ends with the script.
if [ -z "$LIVEKIT_URL" ]; then
    export LIVEKIT_URL=ws://127.0.0.1:7880 LIVEKIT_API_KEY=devkey LIVEKIT_API_SECRET=secret
    livekit-server --dev >/dev/null 2>&1 &
    trap "kill -KILL $!" EXIT
    until curl -fs localhost:7880 >/dev/null; do sleep 0.1; done
fi
