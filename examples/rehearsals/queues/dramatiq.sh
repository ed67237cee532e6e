# Dramatiq
# pip install 'dramatiq[redis]==2.2.1'
# apt-get install redis-server
. ./redis.sh
agent-initctl rehearse --up 'ready for action' --break "$stop_redis" --mend "$start_redis" \
    --work 'python work.py dramatiq_jobs' --work-up begun "$@" -- dramatiq dramatiq_jobs -p 2 -t 2
