//! The lines that a program prints, kept as they come, so that a test can wait for one and search them all.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::thread;

use tokio::sync::watch;

use super::within;

/// Everything printed so far, by all the streams that are being read into it.
#[derive(Clone)]
pub struct Lines {
    printed: watch::Receiver<Vec<String>>,
}

/// Where the reading threads put lines; the program has closed its output when the last of them is gone.
#[derive(Clone)]
pub struct Sink(Arc<watch::Sender<Vec<String>>>);

impl Lines {
    pub fn new() -> (Self, Sink) {
        let (sender, printed) = watch::channel(Vec::new());
        (Self { printed }, Sink(Arc::new(sender)))
    }

    pub fn all(&self) -> Vec<String> {
        self.printed.borrow().clone()
    }

    pub fn text(&self) -> String {
        self.printed.borrow().join("\n")
    }

    pub fn contains(&self, text: &str) -> bool {
        self.printed.borrow().iter().any(|line| line.contains(text))
    }

    /// Waits until `find` finds something in the lines, and fails with all of them if the program ends before.
    pub async fn find<T>(&self, what: &str, find: impl Fn(&[String]) -> Option<T>) -> T {
        let mut printed = self.printed.clone();
        let waited = within(what, printed.wait_for(|lines| find(lines).is_some())).await;
        match waited {
            Ok(lines) => find(&lines).expect("it was there a moment ago"),
            Err(_) => panic!("the program ended before {what}; it had printed:\n{}", self.text()),
        }
    }

    /// Waits until the program has closed its output, which is when it ends.
    pub async fn end(&self) {
        let mut printed = self.printed.clone();
        // Never true, so it returns when the last sink is gone.
        let _ = printed.wait_for(|_| false).await;
    }
}

impl Sink {
    /// Reads `stream` to its end on a thread of its own, so that the program never blocks on a full pipe.
    pub fn drain(self, stream: impl Read + Send + 'static) {
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                self.0.send_modify(|lines| lines.push(line));
            }
        });
    }
}
