# Starts a Redis for a rehearsal, beside one that may run already; it ends with the script.
export REDIS_PORT=6390
start_redis="redis-server --port $REDIS_PORT --save '' --logfile /dev/null --daemonize yes"
stop_redis="redis-cli -p $REDIS_PORT shutdown nosave"
sh -c "$start_redis" || exit 125
trap "$stop_redis" EXIT
trap 'exit 130' HUP INT TERM # else the trap above is not run
