//! Strict decoding of signed transactions without copying them.
