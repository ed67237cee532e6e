# Starts a LiveKit server for a rehearsal, unless LIVEKIT_URL names one; it ends with the script.
if [ -z "$LIVEKIT_URL" ]; then
    export LIVEKIT_URL=ws://127.0.0.1:7880 LIVEKIT_API_KEY=devkey LIVEKIT_API_SECRET=secret
    for program in livekit-server curl; do
        command -v $program >/dev/null || { echo "$program is not installed" >&2; exit 125; }
    done
    livekit-server --dev >/dev/null 2>&1 &
    trap "kill -KILL $! 2>/dev/null" EXIT
    trap 'exit 130' HUP INT TERM # else the trap above is not run
    until curl -fs localhost:7880 >/dev/null; do
        kill -0 $! 2>/dev/null || { echo 'livekit-server has ended' >&2; exit 125; }
        sleep 0.1
    done
fi
