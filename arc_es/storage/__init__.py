"""Where bodies lie that are too large for the journal: in memory, in NATS, or with a provider that speaks S3."""
