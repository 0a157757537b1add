"""What lies under one identity, as its node knows it: the table of claims, and decisions about them."""
