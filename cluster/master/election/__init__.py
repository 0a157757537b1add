"""Who is master, and whether its term goes on."""
