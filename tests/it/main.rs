//! The one integration test binary.

mod codec;
mod ingress;
mod peers;
