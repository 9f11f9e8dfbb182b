"""The application tree that the engine's folder is dropped into."""
