"""From a budget to a cut: scores, units that are whole, widths, one joint ``CutResult``."""
