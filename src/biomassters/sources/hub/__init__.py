"""The archives on the Hugging Face hub."""
