"""Where decisions are stored: in NATS JetStream, or in memory."""
