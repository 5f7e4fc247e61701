"""Back-tests over public prints in a plain loop, made of the same pieces that quote live. No IO."""
