"""The nouns of the house: price, book, order, fill, inventory, fees. No await, no clock, no IO."""
