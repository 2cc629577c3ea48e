"""The processes of a gateway: configuration, workers, the server and its HTTP protocol."""
