# Ray Serve
# pip install 'ray[serve]==2.60.0'
export RAY_USAGE_STATS_ENABLED=0
agent-initctl rehearse --up http://localhost:8000/ --up-timeout 2m --work 'curl -fsSN localhost:8000' --work-up I "$@" -- \
    serve run ray_agent:app
