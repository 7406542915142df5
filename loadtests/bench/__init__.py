"""Side by side with plain proxies: what a request and a streamed chunk cost, on one pinned core each."""
