"""What only the master does beside dispatch: a file for each duty."""
