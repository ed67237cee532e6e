"""The code of process 1: the standard library only, and as little of it as possible (a test lists the modules)."""
