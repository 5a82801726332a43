//! Tests of the methods on chains in memory; the oracle of every encoder is what go-ethereum v1.17.5 answered about the same blocks.

mod calls;
mod documentation;
mod filters;
mod fixture;
mod frozen;
mod go_ethereum;
mod logs;
mod plans;
mod subscriptions;
mod transactions;
