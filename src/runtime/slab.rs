pub struct TxHandle {}
