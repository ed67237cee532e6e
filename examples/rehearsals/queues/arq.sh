# arq, with `job_completion_wait`
# pip install arq==0.28.0
# apt-get install redis-server
. ./redis.sh
agent-initctl rehearse --up 'Starting worker' --break "$stop_redis" --mend "$start_redis" \
    --work 'python work.py arq_jobs' --work-up begun "$@" -- arq arq_jobs.WorkerSettings
