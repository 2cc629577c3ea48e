"""Making a trained model forget some of its records, where training it again would cost too much."""
