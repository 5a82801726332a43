//! The one integration test binary.

mod codec;
mod docs;
mod ingress;
mod peers;
mod tidy;
