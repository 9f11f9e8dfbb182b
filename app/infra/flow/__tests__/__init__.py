"""The tests of the engine. They import it relatively, so they hold wherever its folder is dropped."""
