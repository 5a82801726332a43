#[derive(Clone)]
pub struct Snapshot {}
