"""One module per revision, oldest first; a revision that was released is never edited."""
