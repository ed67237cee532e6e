# rq
# pip install rq==3.0.0
# apt-get install redis-server
. ./redis.sh
export RQ_REDIS_URL=redis://localhost:$REDIS_PORT
agent-initctl rehearse --up 'Listening on' --break "$stop_redis" --mend "$start_redis" \
    --work 'python work.py rq_jobs' --work-up begun "$@" -- rq worker
