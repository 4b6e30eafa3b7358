//! Where bodies are compressed: on threads of their own, a few at a time, after the answer that brought them has gone.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::store::Store;
use super::tasks::Tasks;
use crate::model::coding::Coding;
use crate::model::entry::Entry;
use crate::model::key::Key;
use crate::rules::codings;

/// How many bodies are compressed at once.
const AT_ONCE: usize = 1;
/// The most entries that wait; one beyond them stays as it is until it is stored again.
const MOST_WAITING: usize = 256;
/// Levels at which each coding is near its best for what it costs, once for each entry.
const GZIP_LEVEL: u32 = 6;
const BROTLI_QUALITY: i32 = 6;
const BROTLI_WINDOW: i32 = 22;
const ZSTD_LEVEL: i32 = 9;

/// Compresses what is stored. Clones share the line.
#[derive(Debug, Clone)]
pub struct Compression {
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Compression {
    /// Nothing to do yet.
    pub fn new(tasks: Tasks) -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), waiting: Arc::default(), tasks }
    }

    /// Gives `entry`, which is stored under `key`, its codings in a while, if it gains by them.
    pub fn begin(&self, store: &Store, key: &Key, entry: &Arc<Entry>, wanted: &[Coding]) {
        if wanted.is_empty() || entry.coded.get().is_some() || !codings::suits(entry) {
            return;
        }
        let waits = Waits(self.waiting.clone());
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            return;
        }
        let (turns, wanted) = (self.turns.clone(), wanted.to_vec());
        let (store, key, entry) = (store.clone(), key.clone(), entry.clone());
        self.tasks.spawn(async move {
            let _waits = waits;
            // Nobody closes it.
            let Ok(_turn) = turns.acquire_owned().await else { return };
            let body = entry.body.clone();
            let compressed = move || {
                let bodies = wanted.into_iter().map(|coding| Ok((coding, compress(coding, &body)?)));
                bodies.collect::<io::Result<Vec<_>>>()
            };
            let bodies = tokio::task::spawn_blocking(compressed).await;
            // Writing to memory does not fail, and what cannot be compressed stays as it is.
            if let Ok(Ok(bodies)) = bodies
                && let Some(coded) = codings::coded(&entry, bodies)
                && entry.coded.set(Box::new(coded)).is_ok()
            {
                store.weigh_again(&key);
            }
        });
    }
}

/// Counts an entry for as long as it waits or is worked on.
struct Waits(Arc<AtomicUsize>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `body` in `coding`.
fn compress(coding: Coding, body: &[u8]) -> io::Result<Bytes> {
    let mut into = Vec::new();
    match coding {
        Coding::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(&mut into, flate2::Compression::new(GZIP_LEVEL));
            gzip.write_all(body)?;
            gzip.finish()?;
        }
        Coding::Br => {
            let parameters = brotli::enc::BrotliEncoderParams {
                quality: BROTLI_QUALITY,
                lgwin: BROTLI_WINDOW,
                size_hint: body.len(),
                ..Default::default()
            };
            brotli::BrotliCompress(&mut { body }, &mut into, &parameters)?;
        }
        Coding::Zstd => into = zstd::bulk::compress(body, ZSTD_LEVEL)?,
    }
    into.shrink_to_fit();
    Ok(into.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_was_compressed_reads_as_it_was() {
        let body: Vec<u8> = (0..20_000u32).flat_map(|at| format!("{at},").into_bytes()).collect();
        for coding in Coding::ALL {
            let small = compress(coding, &body).expect("memory takes it");
            assert!(small.len() < body.len() / 2, "{coding:?}: {}", small.len());
            let mut read = Vec::new();
            match coding {
                Coding::Gzip => drop(flate2::read::GzDecoder::new(&small[..]).read_to_end(&mut read)),
                Coding::Br => drop(brotli::BrotliDecompress(&mut &small[..], &mut read)),
                Coding::Zstd => read = zstd::bulk::decompress(&small, body.len()).expect("is zstd"),
            }
            assert!(read == body, "{coding:?}");
        }
    }
}
