"""Colours and lines for the whole book, colour-blind-safe: Okabe and Ito (2008) and Tol's "muted" set."""

BLACK, GREY, DARK = "#000000", "#666666", "#333333"
ORANGE, SKY, GREEN, BLUE = "#E69F00", "#56B4E9", "#009E73", "#0072B2"
VERMILLION, PURPLE = "#D55E00", "#CC79A7"
INDIGO, WINE, OLIVE, TEAL = "#332288", "#882255", "#999933", "#44AA99"
ROSE, FOREST, BROWN = "#EE8899", "#0B5D27", "#6B4A10"
SOLID, DASHED, DOTTED, DASHDOT = "-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2))

# For methods without a style of their own: a line that no other method has.
SPARE_LINE = (0, (4, 1.5, 1, 1.5, 1, 1.5))
SPARE_COLORS, SPARE_MARKERS = (BLUE, ORANGE, GREEN, WINE, INDIGO, ROSE, TEAL), "osD^v<>pPhX"

# Kinds of memory. A kind in Learner.memory_kinds may have another name in plots and tables: an old copy of
# weights is a teacher in some methods, what a penalty pulls to in others, or the start of the next training.
# A kind without a colour is grey.
MEMORY_LABELS = {"teachers": "old copies"}
MEMORY_KINDS = {"weights": GREY, "old copies": BLUE, "masks": GREEN, "generators": ORANGE,
                "importance": OLIVE, "features": PURPLE, "exemplars": VERMILLION}
