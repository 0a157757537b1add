"""Commands that start something: nodes, the demo; and what nodes need before, key and token."""
