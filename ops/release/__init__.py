"""`on-time release`: the image of a version is built, checked, published and deployed."""
