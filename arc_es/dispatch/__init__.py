"""Ways to hand an envelope to a worker runtime: implementations of `ports.Pusher`."""
