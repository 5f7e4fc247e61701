"""The REST operations: each a plain function from a `Call` to a `Response`. `routes` says which path is which."""
