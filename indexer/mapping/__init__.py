"""Class maps: every pixel of an image gets one of k classes that nobody had to label first."""
