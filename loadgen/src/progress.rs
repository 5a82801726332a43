//! The progress bar: live counters → one line on standard error, drawn by a thread of its own.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::Live;
use crate::report::table::duration;

const REDRAW_MS: u64 = 250;

/// Where nobody watches a terminal, a line is enough this often.
const LINE_MS: u64 = 5_000;

#[derive(Debug)]
pub struct Progress {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Progress {
    pub fn start(live: Arc<Live>, transaction_count: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            if !std::io::stderr().is_terminal() {
                print_lines(&live, &stopped, transaction_count);
                return;
            }
            let bar = ProgressBar::new(transaction_count);
            let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {percent:>3} %  {msg}");
            bar.set_style(style.expect("the template is a constant that indicatif takes"));
            while !stopped.load(Ordering::Relaxed) {
                draw(&bar, &live);
                std::thread::park_timeout(Duration::from_millis(REDRAW_MS));
            }
            draw(&bar, &live);
            bar.finish();
        });
        Self { stop, thread }
    }

    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().expect("drawing does not panic");
    }
}

fn print_lines(live: &Live, stopped: &AtomicBool, transaction_count: u64) {
    let start = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        std::thread::park_timeout(Duration::from_millis(LINE_MS));
        let (finished, text) = state(live);
        let elapsed_s = start.elapsed().as_secs_f64();
        eprintln!("{elapsed_s:>7.1} s  {:>3} %  {text}", finished * 100 / transaction_count.max(1));
    }
}

fn draw(bar: &ProgressBar, live: &Live) {
    let (finished, text) = state(live);
    bar.set_position(finished);
    bar.set_message(text);
}

/// Transactions with an answer, and the whole state in words.
fn state(live: &Live) -> (u64, String) {
    let [sent, accepted, failed, p99_ns] =
        [&live.sent, &live.accepted, &live.failed, &live.p99_ns].map(|counter| counter.load(Ordering::Relaxed));
    let text = format!("sent {sent}, accepted {accepted}, errors {failed}, p99 {}", duration(p99_ns));
    (accepted + failed, text)
}
