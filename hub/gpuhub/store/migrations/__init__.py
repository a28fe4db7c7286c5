"""How the tables came to be, step by step (alembic). Released steps are never edited."""
