"""What goes into the runtime; the build context of its image."""
