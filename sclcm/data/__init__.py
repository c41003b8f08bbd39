"""From AnnData to chunks of rows: which matrix, what it holds, how its rows are read."""
