//! The one integration test binary.

mod codec;
