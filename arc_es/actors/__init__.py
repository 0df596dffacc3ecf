"""Everything long-lived: turns of commands, the follower that feeds the projections, the ticker, the waiting room."""
