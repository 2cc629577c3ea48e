"""What was made from which record, and what becomes of a request to forget one.

    records ──┬───────────────▶ artifact ──▶ artifact ──▶ …      `Lineage.note`, before it is made
              └──▶ named set ──────┘                             `Lineage.derived`: all that follows

`artifacts.py` has the closed list of kinds; `store.py` the file; `graph.py` what a picture of it is
drawn from; `requests.py` the requests to forget and their steps, in the same file; `beside.py` what was
made of files and folders that no run knows. Reasons:
docs/decisions/0062-what-was-made-from-what.md.
"""
