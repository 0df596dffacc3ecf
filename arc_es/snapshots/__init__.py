"""All projections at one position, in files: written beside the service, loaded at start, compared with a full fold."""
