"""What is said to a chat model and what it says, in the words of the OpenAI API."""
