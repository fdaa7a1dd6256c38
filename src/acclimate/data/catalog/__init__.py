"""Public data sets: one file per set, a card and a loader for the layout its authors publish."""
