//! The one integration test binary.

mod codec;
mod docs;
mod http_fuzz;
mod ingress;
mod l1_client;
mod monitoring;
mod peers;
mod sim;
mod sim_settlement;
mod stateless;
mod tidy;
mod tuning;
