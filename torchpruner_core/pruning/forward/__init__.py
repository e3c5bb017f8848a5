"""A forward run in rehearsal: which constants of its code a cut must change, and who holds them."""
