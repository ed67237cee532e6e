# Celery, prefork
# pip install 'celery[redis]==5.7.0'
# apt-get install redis-server
. ./redis.sh
agent-initctl rehearse --up 'ready.' --break "$stop_redis" --mend "$start_redis" \
    --work 'python work.py celery_jobs' --work-up begun "$@" -- celery -A celery_jobs worker -c 2 -l info
