//! The tasks that speak to L1 in our name: signed transactions, and the account at a head.
//!
//! Apart from each other, because the account takes five questions of each endpoint, one after the other, and L1 may make blocks faster than they are answered:
//! what is signed leaves all the same, and of the heads that came meanwhile the newest alone is asked for (`Overwrite`).

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::watch;

use crate::l1::block::{Account, BlockId};
use crate::l1::client::L1Client;
use crate::l1::client::error::ClientError;
use crate::l1::client::transport::Transport;
use crate::l1::tx_manager::types::SendOutcome;
use crate::primitives::{Address, Bytes};

/// A signed transaction.
pub struct Outgoing {
    pub attempt: u64,
    pub raw: Bytes,
}

pub enum Answer {
    Account { account: Account, tip_wei: u128 },
    Sent { attempt: u64, outcome: SendOutcome },
}

/// Sends one transaction after the other, until nobody hands any on.
pub async fn run<T: Transport>(mut client: L1Client<T>, mut outgoing: Receiver<Outgoing>, answers: Sender<Answer>) {
    while let Some(Outgoing { attempt, raw }) = outgoing.recv().await {
        let outcome = client.send_raw(&raw).await;
        if answers.send(Answer::Sent { attempt, outcome }).await.is_err() {
            return;
        }
    }
}

/// Asks for the account at each new head, until nobody tells any more. What nobody names is not answered: the next head asks again.
pub async fn accounts<T: Transport>(
    mut client: L1Client<T>,
    address: Address,
    mut heads: watch::Receiver<BlockId>,
    answers: Sender<Answer>,
) {
    while heads.changed().await.is_ok() {
        let at = *heads.borrow_and_update();
        let account = match client.account(address, at).await {
            Ok(account) => account,
            Err(error @ ClientError::NotAgreed(_)) => {
                tracing::warn!(%error, "nothing is signed at this head");
                continue;
            }
            Err(error) => {
                tracing::debug!(%error, "L1 does not say what the account has");
                continue;
            }
        };
        let tip_wei = client.tip_wei().await.unwrap_or(0);
        if answers.send(Answer::Account { account, tip_wei }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use serde_json::value::{RawValue, to_raw_value};

    use super::*;
    use crate::l1::client::error::EndpointError;
    use crate::primitives::B256;

    /// Answers each call once there is one for it.
    #[derive(Clone, Default)]
    struct Slow {
        asked: Rc<RefCell<Vec<String>>>,
        answers: Rc<RefCell<usize>>,
    }

    impl Transport for Slow {
        fn name(&self) -> String {
            "slow".to_owned()
        }

        fn now_ns(&self) -> u64 {
            0
        }

        async fn pause(&self, _: u64) {
            pending().await
        }

        async fn call(&mut self, method: &str, params: &str, _: Duration) -> Result<Box<RawValue>, EndpointError> {
            self.asked.borrow_mut().push(format!("{method} {params}"));
            std::future::poll_fn(|_| match *self.answers.borrow() {
                0 => std::task::Poll::Pending,
                _ => std::task::Poll::Ready(()),
            })
            .await;
            *self.answers.borrow_mut() -= 1;
            Ok(to_raw_value("0x7").expect("JSON"))
        }
    }

    /// Questions for the account go on for three heads: what is signed leaves meanwhile, and the newest head is the next that is asked for.
    #[test]
    fn a_slow_account_holds_up_nothing() {
        let (about, out) = (Slow::default(), Slow::default());
        let client = |wire: &Slow| L1Client::over([wire.clone()], 7, 1_000_000_000, 1_000_000_000);
        let id = |number: u64| BlockId { number, hash: B256::repeat_byte(number as u8) };
        let (heads, heads_rx) = watch::channel(id(0));
        let (outgoing, outgoing_rx) = tokio::sync::mpsc::channel(4);
        let (answer_tx, mut answers) = tokio::sync::mpsc::channel(4);
        let mut accounts = pin!(accounts(client(&about), Address::ZERO, heads_rx, answer_tx.clone()));
        let mut sender = pin!(run(client(&out), outgoing_rx, answer_tx));
        let mut ctx = Context::from_waker(Waker::noop());
        heads.send_replace(id(1));
        assert!(accounts.as_mut().poll(&mut ctx).is_pending());
        for number in 2..=4 {
            heads.send_replace(id(number));
        }
        assert!(outgoing.try_send(Outgoing { attempt: 3, raw: vec![5].into() }).is_ok());
        *out.answers.borrow_mut() = 2;
        assert!(sender.as_mut().poll(&mut ctx).is_pending());
        assert!(matches!(answers.try_recv(), Ok(Answer::Sent { attempt: 3, outcome: SendOutcome::Accepted })));
        // Chain id, nonce, balance, two nonces more, and the tip.
        *about.answers.borrow_mut() = 6;
        assert!(accounts.as_mut().poll(&mut ctx).is_pending());
        let Ok(Answer::Account { account, tip_wei: 7 }) = answers.try_recv() else { panic!("no account") };
        assert_eq!((account.at, account.nonce), (id(1), 7));
        *about.answers.borrow_mut() = 5;
        assert!(accounts.as_mut().poll(&mut ctx).is_pending());
        let Ok(Answer::Account { account, .. }) = answers.try_recv() else { panic!("no account") };
        assert_eq!(account.at, id(4));
        assert!(about.asked.borrow().iter().all(|asked| !asked.contains(&id(2).hash.to_string())));
    }
}
