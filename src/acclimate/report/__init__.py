"""One self-contained page of evidence for a run, and its JSON twin."""
