"""Files that clients send, turned into text at home: each in a process of its own, within limits."""
