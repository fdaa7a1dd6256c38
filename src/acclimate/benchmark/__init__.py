"""Published tables beside our numbers: tables as TOML, cells that resume, statistics over seeds, pages."""
