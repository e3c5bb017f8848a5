"""Plans as the page holds and draws them."""
