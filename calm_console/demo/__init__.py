"""The sample data, the USMAN and IAG stand-ins, and what `make demo` does with them."""
