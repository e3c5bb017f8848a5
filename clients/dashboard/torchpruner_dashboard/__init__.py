"""The web dashboard; it talks to the service through the SDK only."""
