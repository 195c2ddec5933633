"""What is built of a network: recipes, files, the cache they lie in, and the commands for them."""
