"""Tables that stay at home: what is said of them, a closed set of verbs on them, and who runs these."""
