"""One module per revision, in order; a revision that was released never changes."""
