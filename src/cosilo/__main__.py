"""`python -m cosilo`."""

from cosilo.cli import main

raise SystemExit(main())
