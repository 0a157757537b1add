"""A call on its way to become a job: its arguments as bytes, where it goes, and the handle that comes back."""
