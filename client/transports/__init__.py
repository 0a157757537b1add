"""How frames reach a node: one link to one of several, and what is followed over it."""
