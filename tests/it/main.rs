//! The one integration test binary.

mod codec;
mod http_fuzz;
mod ingress;
mod peers;
