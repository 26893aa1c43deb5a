"""The paper's figures and tables, made again: recipes as data, run as this package's own commands, judged by rules."""
