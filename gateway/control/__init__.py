"""The control API and the admin socket: what operators ask and tell a running gateway."""
