"""The inbound side: HTTP/1.1 from the client's socket to ASGI, and the rules for paths, headers and bodies."""
