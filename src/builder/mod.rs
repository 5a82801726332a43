//! The builder core: admits, orders, executes, closes.

pub mod block;
