"""`agent-initctl check`: reads the files that start a container, and reports what will go wrong at its stop.

It runs in the operator's process, never in a container: the readers keep line numbers (`dockerfile`, `tree`), each kind
of file becomes containers (`from_*`, `model`), `combine` puts together what several files say about one container,
`launch` finds the program behind a command line, `frameworks` knows what programs do at a stop, and `rules` judges.
"""
