"""The picture of one migration: a page with drawings, made of nothing but the attempt."""
