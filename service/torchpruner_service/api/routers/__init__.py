"""Routes. They translate between HTTP and the modules beside this folder, and decide nothing."""
