"""What lies in the store: its keys, its records, and the writes that change them."""
