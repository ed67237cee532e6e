"""The stall report: who is still there, and what each was doing. Runs in a short-lived process of its own.

`processes` looks at the tree from outside, `answers` asks those that can tell more, `words` makes lines of both.
Process 1 logs the lines as they come and ends this process when its time is over, so the most valuable come first.
"""
