"""The kinds of data source that the engine has, each an entry of the table ``SOURCES``."""
