"""agent-initctl rehearse, with genuine agents."""
