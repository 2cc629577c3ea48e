"""The party between many owners: it puts their updates together, round by round, and shows nobody's."""
