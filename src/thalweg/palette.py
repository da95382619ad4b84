"""The colours of all pictures, on white and on dark."""

# After Okabe & Ito 2008, https://jfly.uni-koeln.de/color/: told apart by colour-blind readers too;
# darkened for white paper, lightened for the dark. Dashes tell apart what colours do not.
LIGHT = ("#0072b2", "#d55e00", "#00805d", "#aa4499", "#b87a00", "#2f93d1", "#7a7a7a", "#202020")
DARK = ("#4da6dc", "#f08a4b", "#2fc79b", "#e08ac8", "#f0b73f", "#8ccbf2", "#9a9a9a", "#f0f0f0")
DASHES = ((), (5.0, 1.5), (1.5, 1.2))
STROKES = ("solid", "dashed", "dotted")

# From the smallest to the largest number, where contestants differ by one; from light to dark, so that the
# order is seen without colours too.
ORDERED_LIGHT = ("#cf7a00", "#b8327c", "#24135f")
ORDERED_DARK = ("#ffd166", "#f277a6", "#8f7df2")
