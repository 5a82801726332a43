//! The one integration test binary.

mod codec;
mod docs;
mod peers;
mod tidy;
