"""One page a file. Each has ``install(desk)``, which registers its address."""
