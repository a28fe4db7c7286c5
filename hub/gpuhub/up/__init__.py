"""`gpuhub up`: everything of one machine in one foreground command."""
