"""A cut as an address, as text and as a picture; nothing here knows the user interface."""
