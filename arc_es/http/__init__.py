"""The HTTP edge: one blueprint a resource; reads projections and asks the service for everything else."""
