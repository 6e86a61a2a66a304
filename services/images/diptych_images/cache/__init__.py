"""A node's cache of images: blocks on disk, and how downloads read and fill them."""
