"""What is asked. Importing this package registers every kind of task it holds."""

from cosilo.tasks import choice, classification, extraction, graded, sql, text

__all__ = ["choice", "classification", "extraction", "graded", "sql", "text"]
