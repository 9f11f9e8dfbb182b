"""The rooms that people use around the engine, such as its command line. They stand on its public API alone."""
