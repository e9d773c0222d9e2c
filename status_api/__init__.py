"""What the customer's frontend asks: how far the move of its account's history is. It reads the console's summary and writes nothing."""
