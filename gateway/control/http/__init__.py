"""The control API over HTTP: how pools, queue and providers stand, for operators and the services beside us."""
