"""Training of the SimpleViT on images that nobody has labelled."""
