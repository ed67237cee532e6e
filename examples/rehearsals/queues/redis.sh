# Starts a Redis for a rehearsal, beside one that may run already; it ends with the script.
export REDIS_URL=redis://localhost:6390
start_redis="redis-server --port 6390 --save '' --logfile /dev/null --daemonize yes"
stop_redis='redis-cli -p 6390 shutdown nosave'
sh -c "$start_redis" || exit 125
trap "$stop_redis" EXIT
trap 'exit 130' HUP INT TERM # else the trap above is not run
