"""The colours and dashes of all pictures, on a light and on a dark background."""

# After Okabe & Ito 2008, https://jfly.uni-koeln.de/color/: colour-blind readers distinguish them too;
# darkened for a light background, lightened for a dark one. Dashes distinguish what colours do not.
LIGHT = ("#0072b2", "#d55e00", "#00805d", "#aa4499", "#b87a00", "#2f93d1", "#7a7a7a", "#202020")
DARK = ("#4da6dc", "#f08a4b", "#2fc79b", "#e08ac8", "#f0b73f", "#8ccbf2", "#9a9a9a", "#f0f0f0")

# Lengths of dash and gap, in line widths; and what captions call them.
DASHES = ((), (5.0, 1.5), (1.5, 1.2))
DASH_NAMES = ("solid", "dashed", "dotted")

# From the smallest to the largest number, where lines differ by one; from light to dark, so that the order
# is seen without colours too.
SEQUENTIAL_LIGHT = ("#cf7a00", "#b8327c", "#24135f")
SEQUENTIAL_DARK = ("#ffd166", "#f277a6", "#8f7df2")
