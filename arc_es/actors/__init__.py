"""Everything long-lived: the turns of commands, the follower that feeds the projections, the ticker, the waiting room."""
