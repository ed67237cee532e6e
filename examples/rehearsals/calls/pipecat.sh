# pipecat
# pip install pipecat-ai==1.14.0 websockets
agent-initctl rehearse --up ready --work 'python pipecat_work.py' --work-up think "$@" -- python pipecat_agent.py
