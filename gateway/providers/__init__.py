"""How each kind of provider is spoken to: reading a request, addressing it, metering the reply."""
