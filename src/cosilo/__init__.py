"""Large and small models, working together across silos.

Importing this package opens no connection, reads no argument and loads no weights.
"""

__version__ = "0.1.0"
