"""Load for `arc-es bench`: sessions of raw HTTP, and a service of its own to send it to."""
