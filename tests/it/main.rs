//! The one integration test binary.

mod codec;
mod docs;
mod http_fuzz;
mod ingress;
mod peers;
mod sim;
mod stateless;
mod tidy;
