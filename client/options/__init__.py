"""What may be said of a task, a queue or an enqueue, and what it means: each thing checked where it is said."""
