"""Everything at once against a whole deployment: clients work, parts die, garbage is collected.

Nothing that was acknowledged may be lost, nothing may be stuck, nothing may be wrong.
"""
