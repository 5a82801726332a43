//! The `el-accounts` thread: accounts that the builder core has to know, asked of the execution client many at a time.
//!
//! Rings: questions from the builder core (each account once, until it is answered), answers back. It may wait. Balance, nonce and code are asked at the
//! number of a block, so that what comes is of one state; of the code only counts whether there is one, and whether it is a delegation.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::engine_api::blocking::{BlockingClient, BlockingSettings};
use crate::engine_api::types::{CallError, Method};
use crate::limits;
use crate::mempool::AccountView;
use crate::messages::{AccountAnswer, AccountQuestion};
use crate::primitives::U256;
use crate::ring::{Consumer, Doorbell, Producer};
use crate::topology::Shared;

/// Accounts of one request: go-ethereum takes batches of 1,000, and an account is three questions.
const ACCOUNTS_PER_BATCH: usize = 250;
/// Questions that wait for the thread. On full: they are asked again later. Of their answers twice as many: `Stall`.
pub const ACCOUNT_QUESTIONS: usize = 4_096;
/// How the code of a delegated account begins (EIP-7702), in the hex of an answer.
const DELEGATION_PREFIX: &str = "0xef0100";

/// Everything that the thread owns.
pub struct AccountSeat {
    pub inbox: Consumer<AccountQuestion>,
    pub answers: Producer<AccountAnswer>,
    pub doorbell: Arc<Doorbell>,
    pub client: BlockingSettings,
    pub shared: Arc<Shared>,
}

/// Runs until the process closes.
///
/// # Errors
/// The runtime cannot be started.
pub fn run(seat: AccountSeat) -> Result<(), String> {
    let AccountSeat { mut inbox, mut answers, doorbell, client, shared } = seat;
    let mut client = BlockingClient::new(client).map_err(|error| error.to_string())?;
    doorbell.adopt_current_thread();
    while !shared.is_closed() {
        let questions: Vec<_> = std::iter::from_fn(|| inbox.pop()).take(ACCOUNTS_PER_BATCH).collect();
        if questions.is_empty() {
            let limit = Some(Duration::from_nanos(limits::PARK_NS_MAX));
            doorbell.park(limit, || !inbox.is_empty() || shared.is_closed());
            continue;
        }
        for mut answer in ask(&mut client, &questions) {
            // The ring has a slot for every question that the other one can hold, and for a batch.
            while let Err(back) = answers.push(answer) {
                answer = back;
                answers.wake();
                doorbell.park(Some(Duration::from_millis(1)), || shared.is_closed());
            }
        }
        answers.wake();
    }
    Ok(())
}

fn ask(client: &mut BlockingClient, questions: &[AccountQuestion]) -> Vec<AccountAnswer> {
    let mut calls = Vec::with_capacity(3 * questions.len());
    for AccountQuestion { address, head } in questions {
        let params = format!(r#"["{address:#x}","{head:#x}"]"#);
        for method in [Method::GetBalance, Method::GetTransactionCount, Method::GetCode] {
            calls.push((method, params.clone().into_bytes()));
        }
    }
    let answered = client.ask_batch(&calls);
    let view_of = |index: usize| match &answered {
        Err(error) => Err(error.to_string()),
        Ok(results) => view(&results[3 * index..3 * index + 3]),
    };
    let with_view = |(index, question): (usize, &AccountQuestion)| AccountAnswer {
        address: question.address,
        head: question.head,
        view: view_of(index),
    };
    questions.iter().enumerate().map(with_view).collect()
}

/// Balance, nonce and code, in this order.
fn view(results: &[Result<Value, CallError>]) -> Result<AccountView, String> {
    let text = |index: usize| match &results[index] {
        Ok(Value::String(text)) => Ok(text.as_str()),
        Ok(other) => Err(format!("not a text: {other}")),
        Err(error) => Err(error.to_string()),
    };
    let number = |index: usize| -> Result<U256, String> {
        let text = text(index)?;
        text.parse().map_err(|_| format!("not a quantity: {text}"))
    };
    let nonce = u64::try_from(number(1)?).map_err(|_| "a nonce of more than 64 bits".to_owned())?;
    let code = text(2)?;
    let is_delegated = code.starts_with(DELEGATION_PREFIX);
    let has_code = code.len() > "0x".len();
    Ok(AccountView { balance_wei: number(0)?, nonce, has_code_not_delegation: has_code && !is_delegated, is_delegated })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(results: [Value; 3], expected: &str) {
        let results: Vec<_> = results.into_iter().map(Ok).collect();
        let shown = match view(&results) {
            Err(why) => why,
            Ok(AccountView { balance_wei, nonce, has_code_not_delegation, is_delegated }) => {
                format!("{balance_wei} {nonce} {has_code_not_delegation} {is_delegated}")
            }
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_account_is_what_three_answers_say() {
        check([json!("0xff"), json!("0x7"), json!("0x")], "255 7 false false");
        check([json!("0x0"), json!("0x0"), json!("0x6001")], "0 0 true false");
        check([json!("0x1"), json!("0x2"), json!(format!("0xef0100{}", "11".repeat(20)))], "1 2 false true");
        check([json!(null), json!("0x2"), json!("0x")], "not a text: null");
        check([json!("0x1"), json!("nine"), json!("0x")], "not a quantity: nine");
        check([json!("0x1"), json!("0x10000000000000000"), json!("0x")], "a nonce of more than 64 bits");
    }
}
