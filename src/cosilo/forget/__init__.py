"""A request to forget records, followed to everything at home that was made from them.

    ids ──▶ rows of the data files ──▶ runs made of these files ──▶ lineage: what was made
                    │                          │                         │
                    └──────── a plan: steps in `lineage.sqlite` beside the data ◀────┘
                                               │ one after another, each done twice without harm
                                               ▼
            withdrawn, deleted ─▶ rows left out of files ─▶ runs made again ─▶ a search, a certificate

`asked.py` reads whom it is about, `home.py` finds what there is, `planning.py` makes the steps,
`carrying_out.py` does them, `remaking.py` makes a run again as if it had never seen the records,
`searching.py` looks for what is left, `erasure.py` signs what was done. See docs/forget.md.
"""
