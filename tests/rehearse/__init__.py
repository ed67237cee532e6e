"""`agent-initctl rehearse`: whole rehearsals of genuine agents, and what they print."""
