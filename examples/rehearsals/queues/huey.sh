# Huey
# pip install huey==3.5.4 redis
# apt-get install redis-server
. ./redis.sh
agent-initctl rehearse --up 'Huey consumer started' --break "$stop_redis" --mend "$start_redis" \
    --work 'python work.py huey_jobs' --work-up begun "$@" -- huey_consumer huey_jobs.queue
