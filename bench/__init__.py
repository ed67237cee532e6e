"""agent-init measured beside its peers; `python -m bench`, see README.md here."""
