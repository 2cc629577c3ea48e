"""A trained tagger of names, for languages that no installed pipeline reads."""
