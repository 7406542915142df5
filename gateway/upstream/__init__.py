"""Clients that carry one exchange to a provider or worker; import the module you need (`base`, `native`, `httpx`)."""
