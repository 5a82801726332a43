//! The task that speaks to L1 in our name: the account at a head, and signed transactions.

use tokio::sync::mpsc::{Receiver, Sender};

use crate::l1::block::{Account, BlockId};
use crate::l1::client::L1Client;
use crate::l1::client::error::ClientError;
use crate::l1::client::transport::Transport;
use crate::l1::tx_manager::types::SendOutcome;
use crate::primitives::{Address, Bytes};

pub enum Request {
    Account(BlockId),
    Send { attempt: u64, raw: Bytes },
}

pub enum Answer {
    Account { account: Account, tip_wei: u128 },
    Sent { attempt: u64, outcome: SendOutcome },
}

/// Answers one request after the other, until their sender is gone. An account that nobody names is not answered: the next head asks again.
pub async fn run<T: Transport>(
    mut client: L1Client<T>,
    address: Option<Address>,
    mut requests: Receiver<Request>,
    answers: Sender<Answer>,
) {
    while let Some(request) = requests.recv().await {
        let answer = match (request, address) {
            (Request::Send { attempt, raw }, _) => Some(Answer::Sent { attempt, outcome: client.send_raw(&raw).await }),
            (Request::Account(at), Some(address)) => match client.account(address, at).await {
                Ok(account) => {
                    let tip_wei = client.tip_wei().await.unwrap_or(0);
                    Some(Answer::Account { account, tip_wei })
                }
                Err(error @ ClientError::NotAgreed(_)) => {
                    tracing::warn!(%error, "nothing is signed at this head");
                    None
                }
                Err(error) => {
                    tracing::debug!(%error, "L1 does not say what the account has");
                    None
                }
            },
            (Request::Account(_), None) => None,
        };
        if let Some(answer) = answer
            && answers.send(answer).await.is_err()
        {
            return;
        }
    }
}
