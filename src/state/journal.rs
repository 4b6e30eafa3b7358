//! Where ledgers outlive the process: `[state] dir`, one file an account, locked so that no two gates spend it twice.
//!
//! A line is in the system's hands before what it allows is done, so that it outlives `kill -9`. It is forced to the disk
//! right behind that, so that nobody waits for the disk and a power cut loses no more than the disk was busy with.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::tasks::Tasks;
use crate::rules::records::{Kept, Record};

/// The file whose lock says that a gate uses the directory.
const LOCK: &str = "lock";
/// After how many lines a file is written anew, without what matters no longer.
const SUPERFLUOUS: usize = 4096;
/// How long the longest window is.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// The directory, locked for as long as this lives. Clones share it.
#[derive(Debug, Clone)]
pub struct StateDir(Arc<Held>);

#[derive(Debug)]
struct Held {
    dir: PathBuf,
    /// Open, hence locked.
    _lock: File,
    journals: Mutex<HashMap<String, Journal>>,
}

/// One account's file. Clones share it.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Mutex<Written>>);

#[derive(Debug)]
struct Written {
    path: PathBuf,
    file: Arc<File>,
    kept: Kept,
    /// How many lines were written since the file was.
    fresh: usize,
    /// The last line may be unfinished.
    torn: bool,
    /// Something was written that was not forced to the disk yet, and whether somebody is about to.
    unsynced: bool,
    syncing: bool,
}

/// Why a directory cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// Another process has it.
    Locked,
    /// A file in it holds what no gate wrote.
    Unreadable(PathBuf, usize),
    /// The system refused.
    Io(PathBuf, io::Error),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Locked => f.write_str("another gate uses it; each needs a directory of its own"),
            Self::Unreadable(path, line) => write!(f, "{}, line {line}: is no record", path.display()),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl StateDir {
    /// Makes the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn lock(dir: &Path) -> Result<Self, Unusable> {
        let wrong = |error| Unusable::Io(dir.to_owned(), error);
        std::fs::create_dir_all(dir).map_err(wrong)?;
        let lock = File::create(dir.join(LOCK)).map_err(wrong)?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => Unusable::Locked,
            std::fs::TryLockError::Error(error) => wrong(error),
        })?;
        let journals = Mutex::default();
        Ok(Self(Arc::new(Held { dir: dir.to_owned(), _lock: lock, journals })))
    }

    /// Whether a gate could use the directory, whoever has it now. It is made if it is missing; nothing else changes.
    ///
    /// # Errors
    /// Why it could not.
    pub fn try_out(dir: &Path) -> Result<(), Unusable> {
        let wrong = |error| Unusable::Io(dir.to_owned(), error);
        std::fs::create_dir_all(dir).map_err(wrong)?;
        OpenOptions::new().create(true).append(true).open(dir.join(LOCK)).map(drop).map_err(wrong)
    }

    /// The file of the account called `name`, with what it holds; made if it is missing.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn journal(&self, name: &str, now: SystemTime) -> Result<Journal, Unusable> {
        let mut journals = self.0.journals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = journals.get(name) {
            return Ok(held.clone());
        }
        let path = self.0.dir.join(format!("{name}.ledger"));
        let journal = Journal(Arc::new(Mutex::new(Written::open(path, now)?)));
        journals.insert(name.to_owned(), journal.clone());
        Ok(journal)
    }
}

impl Journal {
    /// Writes a line down.
    ///
    /// # Errors
    /// Why what it allows must not be done.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(record)
    }

    /// What the lines mean together.
    pub fn kept(&self) -> Kept {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).kept.clone()
    }

    /// Forces what was written to the disk, behind whoever wrote it.
    pub fn sync_behind(&self, tasks: &Tasks) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut written.syncing, true) {
            let journal = self.clone();
            tasks.spawn(tokio::task::spawn_blocking(move || {
                while let Some(file) = journal.unsynced() {
                    // What the disk does not take is in the system's hands all the same.
                    let _ = file.sync_data();
                }
            }));
        }
    }

    /// The file, if something in it is not on the disk: whoever asks is about to force it there, until it is told of none.
    fn unsynced(&self) -> Option<Arc<File>> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.syncing = std::mem::take(&mut written.unsynced);
        written.syncing.then(|| written.file.clone())
    }

    /// Forces everything to the disk.
    pub fn sync(&self) {
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).file.sync_data();
    }
}

impl Written {
    fn open(path: PathBuf, now: SystemTime) -> Result<Self, Unusable> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Unusable::Io(path, error)),
        };
        let mut kept = Kept::of_text(&text).map_err(|line| Unusable::Unreadable(path.clone(), line))?;
        kept.forget(now, length);
        let file = anew(&path, &kept).map_err(|error| Unusable::Io(path.clone(), error))?;
        Ok(Self { path, file: file.into(), kept, fresh: 0, torn: false, unsynced: false, syncing: false })
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let line = record.to_line();
        let line = if self.torn { format!("\n{line}") } else { line };
        // One write, so that the line is there whole or not at all, as far as the system can.
        let written = (&*self.file).write_all(line.as_bytes());
        self.torn = written.is_err();
        written?;
        self.unsynced = true;
        self.kept.take(record);
        self.fresh += 1;
        if self.fresh > SUPERFLUOUS {
            self.shorten(record);
        }
        Ok(())
    }

    /// Writes what still matters into a new file; where that fails the long one goes on.
    fn shorten(&mut self, last: &Record) {
        if let Record::Lease(lease) = last {
            self.kept.forget(lease.at, length);
        }
        self.fresh = 0;
        if let Ok(file) = anew(&self.path, &self.kept) {
            self.file = file.into();
        }
    }
}

/// A file of these records, in place of the one that was there once it is whole on the disk.
fn anew(path: &Path, kept: &Kept) -> io::Result<File> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(kept.to_text().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    OpenOptions::new().append(true).open(path)
}

/// How long what was spent of a window matters, by its name; the longest for a name that says nothing.
fn length(window: &str) -> Duration {
    match window {
        "day" => Duration::from_secs(2 * 86_400),
        "month" => Duration::from_secs(32 * 86_400),
        sliding => {
            let seconds = sliding.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
            seconds.map_or(LONGEST, Duration::from_secs_f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::records::Spending;

    fn lease(calls: u32, seconds: u64) -> Record {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Record::Lease(Spending { window: "day".into(), calls, at })
    }

    #[test]
    fn two_gates_do_not_share_a_directory_and_what_is_written_is_there_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let first = StateDir::lock(&dir.path().join("deep/er")).expect("is free");
        assert!(matches!(StateDir::lock(&dir.path().join("deep/er")), Err(Unusable::Locked)));
        StateDir::try_out(&dir.path().join("deep/er")).expect("could be used");
        let journal = first.journal("u.a", now).expect("is new");
        journal.write(&lease(5, 900)).expect("can be written");
        journal.write(&lease(5, 950)).expect("can be written");
        drop((journal, first));
        let again = StateDir::lock(&dir.path().join("deep/er")).expect("is free again");
        let kept = again.journal("u.a", now).expect("is there").kept();
        assert_eq!(kept.spent("day", now).map(|(calls, _)| calls).sum::<u32>(), 10);
    }

    #[test]
    fn a_file_stays_short_and_what_nobody_wrote_is_not_taken_for_a_ledger() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::lock(dir.path()).expect("is free");
        let journal = state.journal("a", SystemTime::UNIX_EPOCH).expect("is new");
        for second in 0..20_000 {
            journal.write(&lease(1, second * 100)).expect("can be written");
        }
        let text = std::fs::read_to_string(dir.path().join("a.ledger")).expect("is text");
        assert!(text.lines().count() < 3 * SUPERFLUOUS, "{}", text.lines().count());
        std::fs::write(dir.path().join("b.ledger"), "lease nonsense .\n").expect("can be written");
        let refused = state.journal("b", SystemTime::UNIX_EPOCH);
        assert!(matches!(refused, Err(Unusable::Unreadable(_, 1))), "{refused:?}");
    }

    #[tokio::test]
    async fn what_is_written_is_forced_to_the_disk_behind_whoever_wrote_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::lock(dir.path()).expect("is free");
        let journal = state.journal("a", SystemTime::UNIX_EPOCH).expect("is new");
        let tasks = Tasks::new(prometheus::IntGauge::new("alive", "alive").expect("a name"));
        for second in 0..3 {
            journal.write(&lease(1, second)).expect("can be written");
            journal.sync_behind(&tasks);
        }
        assert!(tasks.alive() <= 3);
        tasks.idle().await;
        let written = journal.0.lock().expect("nobody panicked");
        assert!(!written.unsynced && !written.syncing);
    }
}
