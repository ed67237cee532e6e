# Run in the virtual machine: run some containers and print a section for each.
docker load --quiet --input probe.tar
image=agent-init-test/probe
eater='hoard = []
while True: hoard.append(bytes(1_000_000))'

start() { # start NAME OPTIONS... IMAGE COMMAND...
    name=$1
    shift
    docker run --detach --network none --name "$name" --env AGENT_INIT_LOG_FORMAT=json "$@" >/dev/null
}
wait_for_lines() { # wait_for_lines NAME LINES: wait until the agent has printed this many lines
    until [ "$(docker logs "$1" 2>/dev/null | wc -l)" -ge "$2" ]; do sleep 0.2; done
}
report() { # report NAME: wait for its exit, print how it exited and its lines
    docker wait "$1" >/dev/null
    docker inspect --format "== $1 {{.State.ExitCode}} {{.State.OOMKilled}}" "$1"
    docker logs "$1" 2>&1
}

echo "== machine $(stat --file-system --format %T /sys/fs/cgroup) $(docker info --format '{{.CgroupVersion}}')"

start stop "$image" python /probe/recorder.py --code=3 --children=1
wait_for_lines stop 2
docker stop --time 120 stop >/dev/null
report stop

start deadline --env AGENT_INIT_GRACE=2s "$image" python /probe/recorder.py --stop-on= --children=1
wait_for_lines deadline 2
docker stop --time 120 deadline >/dev/null
report deadline

# The limit is set once the container runs: with one of 1 from the start, runc often fails for lack of a thread.
waiting='until read -r limit </sys/fs/cgroup/pids.max && [ "$limit" = 1 ]; do :; done; exec agent-init -- true'
start pids --entrypoint sh "$image" -c "$waiting"
docker update --pids-limit 1 pids >/dev/null
report pids

start agent --memory 64m "$image" python -c "$eater"
report agent

start child --memory 64m "$image" sh -c 'python -c "$1"; echo "child $?"; exit 7' - "$eater"
report child

# Like a kubelet since Kubernetes 1.28: if the OOM killer kills one process, it kills all.
waiting='until [ -e /tmp/go ]; do sleep 0.2; done; exec python -c "$1"'
start group --user 0 --memory 64m "$image" sh -c "$waiting" - "$eater"
echo 1 >"/sys/fs/cgroup/docker/$(docker inspect --format '{{.Id}}' group)/memory.oom.group"
docker exec group touch /tmp/go
report group
