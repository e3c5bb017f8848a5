"""Running a model over batches of data to see what its weights read; the model is left as it was found."""
