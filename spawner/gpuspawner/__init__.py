"""What the hub starts, and how: names, profiles, and the spawners."""
