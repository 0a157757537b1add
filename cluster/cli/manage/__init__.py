"""Commands that do something to a cluster: enqueue, retry, cancel, pause, schedules, outboxes, reset."""
