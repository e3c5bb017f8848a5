"""From what each operator ties together to every group of the model, solved at once."""
