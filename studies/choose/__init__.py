"""The best option for each position of a table of scores and costs, with its proof."""
