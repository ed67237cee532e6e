"""The stall report: which processes are left and what each is doing. Runs in a short-lived process of its own.

`processes` inspects the process tree from outside, `answers` asks the processes that can show their stacks, `render`
turns both into lines of text. Process 1 logs each line as it arrives and kills this process when its time is up, so the
most valuable lines come first.
"""
