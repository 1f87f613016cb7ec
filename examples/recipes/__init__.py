"""What train.py and paper_tables.py are made of."""
