"""The page that `vavl demo` serves: a clip in a browser, an emotion out."""
