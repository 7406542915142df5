"""Where a call goes next: which of equal targets, when again, and where not to for now."""
