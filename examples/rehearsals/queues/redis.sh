# Starts a Redis for a rehearsal; it ends with the script.
start_redis="redis-server --save '' --logfile /dev/null --daemonize yes"
stop_redis='redis-cli shutdown nosave'
trap "$stop_redis" EXIT
sh -c "$start_redis"
