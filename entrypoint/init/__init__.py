"""What runs in process 1: the standard library only, and as little of it as can be (tests count the modules)."""
