"""What Redis holds: job states, solved graphs, indexes, the queue. All of it can be rebuilt."""
