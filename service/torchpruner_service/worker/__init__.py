"""Jobs: one work-horse process each, with untrusted parts in the sandbox."""
