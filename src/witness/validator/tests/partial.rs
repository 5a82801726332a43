//! Partial tries against the whole ones of `alloy-trie`.
