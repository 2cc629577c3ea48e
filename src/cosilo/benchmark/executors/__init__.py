"""Where trials run that are not run in the process of the runner: on this machine, or on a cluster."""
