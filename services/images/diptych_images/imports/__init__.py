"""Imports: how data gets into an image by a job instead of a request's body."""
