# What the emulated machine does: some lives of containers, each told in a section of its own.
docker load --quiet --input probe.tar
image=agent-init-test/probe
eater='hoard = []
while True: hoard.append(bytes(1_000_000))'

begin() { # begin NAME OPTIONS... IMAGE COMMAND...
    name=$1
    shift
    docker run --detach --network none --name "$name" --env AGENT_INIT_LOG_FORMAT=json "$@" >/dev/null
}
await() { # await NAME LINES: until the agent has said as much
    until [ "$(docker logs "$1" 2>/dev/null | wc -l)" -ge "$2" ]; do sleep 0.2; done
}
tell() { # tell NAME: its end, then its lines
    docker wait "$1" >/dev/null
    docker inspect --format "== $1 {{.State.ExitCode}} {{.State.OOMKilled}}" "$1"
    docker logs "$1" 2>&1
}

echo "== machine $(stat --file-system --format %T /sys/fs/cgroup) $(docker info --format '{{.CgroupVersion}}')"

begin stop "$image" python /probe/recorder.py --code=3 --children=1
await stop 2
docker stop --time 120 stop >/dev/null
tell stop

begin deadline --env AGENT_INIT_GRACE=2s "$image" python /probe/recorder.py --stop-on= --children=1
await deadline 2
docker stop --time 120 deadline >/dev/null
tell deadline

begin pids --pids-limit 1 "$image" true
tell pids

begin agent --memory 64m "$image" python -c "$eater"
tell agent

begin child --memory 64m "$image" sh -c 'python -c "$1"; echo "child $?"; exit 7' - "$eater"
tell child

# As a kubelet does since Kubernetes 1.28: if one is killed, all are.
waiting='until [ -e /tmp/go ]; do sleep 0.2; done; exec python -c "$1"'
begin group --user 0 --memory 64m "$image" sh -c "$waiting" - "$eater"
echo 1 >"/sys/fs/cgroup/docker/$(docker inspect --format '{{.Id}}' group)/memory.oom.group"
docker exec group touch /tmp/go
tell group
