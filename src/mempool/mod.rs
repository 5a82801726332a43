#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reject {}
pub struct Conditions {}
