"""The HTTP server (--http): a process of its own. Process 1 starts it, and writes the state into its stdin.

It shares code with process 1, but nothing it does reaches that one: the pipe has one direction.
"""
