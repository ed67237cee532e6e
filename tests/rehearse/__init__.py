"""`agent-initctl rehearse`: whole rehearsals, and what they print."""
