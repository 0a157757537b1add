"""What happened, as typed records: the one seam that logs, metrics, the dashboard and hooks listen to."""
