"""What runs beside the user: in the server and in the worker."""
