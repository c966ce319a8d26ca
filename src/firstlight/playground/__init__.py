"""The playground: initialization seen and felt in the browser, computed in Python by the library itself."""
