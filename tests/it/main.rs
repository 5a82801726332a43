//! The one integration test binary.

mod codec;
mod peers;
