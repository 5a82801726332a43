//! A server between us and a port of an execution client, which passes requests on or answers wrongly.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// What is answered instead of what the client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongAnswer {
    None,
    Status(u16),
    NotJson,
    /// SYNCING to every payload.
    Syncing,
    /// INVALID to every payload.
    Invalid,
    /// VALID with the hash of another block.
    OtherBlock,
    /// `debug_executionWitness` without one of its nodes.
    PartOfWitness,
}

/// The server; its threads end with the process.
pub struct FaultyEngine {
    pub url: String,
    wrong: Arc<Mutex<WrongAnswer>>,
}

impl FaultyEngine {
    /// Listens in front of `engine_url` and passes everything on.
    pub fn start(engine_url: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let wrong = Arc::new(Mutex::new(WrongAnswer::None));
        let shared = Arc::clone(&wrong);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (wrong, engine_url) = (Arc::clone(&shared), engine_url.clone());
                thread::spawn(move || serve(&stream, &engine_url, &wrong));
            }
        });
        Self { url, wrong }
    }

    /// From now on.
    pub fn answer(&self, wrong: WrongAnswer) {
        *self.wrong.lock().expect("nobody panics with it") = wrong;
    }
}

/// One connection, until either side is gone.
fn serve(stream: &TcpStream, engine_url: &str, wrong: &Mutex<WrongAnswer>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let agent = config.new_agent();
    loop {
        let (token, body) = read_request(&mut reader)?;
        let request: Value = serde_json::from_slice(&body).ok()?;
        // With a witness, too.
        let is_payload = request["method"].as_str().is_some_and(|method| method.starts_with("engine_newPayload"));
        let wrong = *wrong.lock().ok()?;
        let (status, answer) = match wrong {
            WrongAnswer::Status(status) => (status, "no".to_owned()),
            WrongAnswer::NotJson => (200, "<html>".to_owned()),
            WrongAnswer::Syncing | WrongAnswer::Invalid if is_payload => {
                let status = if wrong == WrongAnswer::Syncing { "SYNCING" } else { "INVALID" };
                let result = json!({"status": status, "latestValidHash": null, "validationError": "by the test"});
                (200, json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string())
            }
            _ => {
                let mut response = agent.post(engine_url).header("authorization", &token).send_json(&request).ok()?;
                let status = response.status().as_u16();
                let mut text = response.body_mut().read_to_string().ok()?;
                if wrong == WrongAnswer::OtherBlock && is_payload {
                    let mut answer: Value = serde_json::from_str(&text).ok()?;
                    answer["result"]["latestValidHash"] = json!(format!("0x{}", "ee".repeat(32)));
                    text = answer.to_string();
                }
                if wrong == WrongAnswer::PartOfWitness && request["method"] == "debug_executionWitness" {
                    let mut answer: Value = serde_json::from_str(&text).ok()?;
                    answer["result"]["state"].as_array_mut()?.pop();
                    text = answer.to_string();
                }
                (status, text)
            }
        };
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        (&*stream).write_all(format!("{head}{answer}").as_bytes()).ok()?;
    }
}

/// The token and the body of the next request.
fn read_request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let (mut token, mut body_bytes) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let Some((name, value)) = line.split_once(':') else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => value.trim().clone_into(&mut token),
            "content-length" => body_bytes = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; body_bytes];
    reader.read_exact(&mut body).ok()?;
    Some((token, body))
}
